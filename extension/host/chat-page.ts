// The chat's HTML document: an empty body, one script, one style sheet, and a policy under which nothing else runs or loads.

export interface ChatPage {
  readonly script: string;
  readonly style: string;
  /** Origin that the editor serves the extension's own files from. */
  readonly source: string;
  /** Unguessable, new for each page. */
  readonly nonce: string;
}

export function chatPage({ script, style, source, nonce }: ChatPage): string {
  const policy = ["default-src 'none'", `script-src 'nonce-${nonce}'`, `style-src ${source}`].join('; ');
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SALA</title>
<link rel="stylesheet" href="${style}">
</head>
<body>
<script nonce="${nonce}" src="${script}"></script>
</body>
</html>
`;
}
