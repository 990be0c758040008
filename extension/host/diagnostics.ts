// "SALA: Diagnostics": what the window knows and what `sala doctor` finds, as one document that can be read and sent. It holds no
// text of the workspace and no file names of it.

import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import * as vscode from 'vscode';
import type { Session } from './session';

const doctor_ms = 60_000;

export async function showDiagnostics(context: vscode.ExtensionContext, session: Session): Promise<void> {
  const doctor = await vscode.window.withProgress({ location: vscode.ProgressLocation.Notification, title: 'SALA: looking at this machine…' }, () =>
    runDoctor(context, session.config.modelFolder),
  );
  const { engine, ingest, config } = session;
  const content = [
    '# SALA: diagnostics',
    `- extension ${String((context.extension.packageJSON as { version: unknown }).version)}, VS Code ${vscode.version}, Node ${process.versions.node}, ${process.platform}-${process.arch}`,
    `- window: ${session.place}, remote: ${vscode.env.remoteName ?? 'no'}, consent: ${session.consent}, paused: ${session.paused}, on battery: ${session.onBattery}`,
    `- engine: ${engine.state}${engine.state === 'failed' ? `: ${engine.error.code}: ${engine.error.message}` : engine.state === 'starting' ? `: ${engine.message}` : ''}`,
    '',
    '## Engine',
    block(engine.state === 'ready' ? engine.hello : null),
    '## Reading',
    block(ingest),
    '## Settings',
    block(config),
    '## Doctor',
    '```',
    doctor.trim(),
    '```',
    '',
  ].join('\n');
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ language: 'markdown', content }));
}

function block(value: unknown): string {
  return `\`\`\`json\n${JSON.stringify(value, null, 2)}\n\`\`\`\n`;
}

/** Its words, whether it found something wrong or not. */
async function runDoctor(context: vscode.ExtensionContext, modelFolder: string): Promise<string> {
  const args = [path.join(context.extensionPath, 'dist', 'cli.cjs'), 'doctor', ...(modelFolder === '' ? [] : ['--model', modelFolder])];
  // On a desktop this process is Electron, which is Node when told so.
  const env = { ...process.env, ELECTRON_RUN_AS_NODE: '1' };
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env, timeout: doctor_ms });
    return `${stdout}${stderr}`;
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string };
    return [stdout, stderr, stdout === '' ? message : ''].filter((text) => text !== '').join('\n');
  }
}
