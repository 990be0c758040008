// A package's source from Debian, by apt: without a change to the system's own lists.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Unpacks the source of a package into a folder below `into`, and returns it. Throws where apt is not there or finds none. */
export function fetchDebianSource(name: string, into: string): string {
  const folder = path.join(into, `debian-${name}`);
  const lists = path.join(folder, 'lists');
  mkdirSync(path.join(lists, 'partial'), { recursive: true });
  const sources = path.join(folder, 'all.sources');
  writeFileSync(sources, systemSources().map((text) => text.replace(/^Types:.*$/gm, 'Types: deb-src')).join('\n'));
  const options = ['-q', '-o', `Dir::Etc::SourceList=${sources}`, '-o', 'Dir::Etc::SourceParts=-', '-o', `Dir::State::Lists=${lists}`];
  execFileSync('apt-get', [...options, 'update'], { stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('apt-get', [...options, 'source', name], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  const unpacked = readdirSync(folder, { withFileTypes: true }).find((entry) => entry.isDirectory() && entry.name !== 'lists');
  if (!unpacked) throw new Error(`expected a source folder of ${name}, found none`);
  return path.join(folder, unpacked.name);
}

/** The system's lists in the deb822 style; lines of the older one are turned into it. */
function systemSources(): string[] {
  const parts = '/etc/apt/sources.list.d';
  const files = existsSync(parts) ? readdirSync(parts).filter((file) => file.endsWith('.sources')) : [];
  const texts = files.map((file) => readFileSync(path.join(parts, file), 'utf8'));
  const lines = existsSync('/etc/apt/sources.list') ? readFileSync('/etc/apt/sources.list', 'utf8').split('\n') : [];
  for (const line of lines) {
    const [, url, suite, components] = /^deb (?:\[[^\]]*\] )?(\S+) (\S+) (.+)$/.exec(line) ?? [];
    if (url !== undefined) texts.push(`Types: deb-src\nURIs: ${url}\nSuites: ${suite}\nComponents: ${components}\n`);
  }
  return texts;
}
