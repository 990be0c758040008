// Two providers of inline completions show either's text by chance. VS Code does not tell who provides them, so the well-known
// extensions are looked for by name; the user is told once.

import * as vscode from 'vscode';

const shownKey = 'sala.otherProviderShown';
const known = [
  'github.copilot',
  'codeium.codeium',
  'tabnine.tabnine-vscode',
  'continue.continue',
  'supermaven.supermaven',
  'amazonwebservices.amazon-q-vscode',
  'sourcegraph.cody-ai',
  'google.geminicodeassist',
  'visualstudioexptteam.vscodeintellicode-completions',
  'tabbyml.vscode-tabby',
];

export async function noteOtherProviders(context: vscode.ExtensionContext, completionsEnabled: boolean): Promise<void> {
  const other = known.map((id) => vscode.extensions.getExtension(id)).find((extension) => extension !== undefined);
  if (other === undefined || !completionsEnabled || context.globalState.get(shownKey) === other.id) return;
  await context.globalState.update(shownKey, other.id);
  const name = String((other.packageJSON as { displayName?: unknown }).displayName ?? other.id);
  const off = 'Turn SALA completions off';
  const picked = await vscode.window.showInformationMessage(`${name} may offer inline completions as well. With two providers it is chance whose text is shown.`, off, 'Keep both');
  if (picked === off) await vscode.workspace.getConfiguration('sala').update('completions.enabled', false, vscode.ConfigurationTarget.Global);
}
