// The command line as a user calls it: exit codes, what is on which stream, one JSON document, Ctrl-C. Around the fake engine of
// test/extension; what the commands say of a model is native.test.ts.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { spawn } from 'node:child_process';
import { createHash, generateKeyPairSync, verify } from 'node:crypto';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { bundle, eventually, makeFakeDist, type FakeDist } from '../extension/fake-dist';

let fake: FakeDist;
let workspace: string;

before(() => {
  fake = makeFakeDist();
  bundle('extension/cli/main.ts', path.join(fake.dist, 'cli.cjs'));
  workspace = path.join(fake.dir, 'w');
  mkdirSync(workspace);
  writeFileSync(path.join(workspace, 'a.ts'), '\ufeffconst a = "🚀";\r\nconst b = 1;\n');
  symlinkSync(workspace, path.join(fake.dir, 'link'));
});
after(async () => {
  // The command line's engine has a user's patience: three seconds.
  await eventually('no engine is left', () => fake.engines().length === 0);
  assert.deepEqual(fake.leftovers(), []);
  fake.dispose();
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[], options: { input?: string; cwd?: string } = {}) {
  const child = spawn(process.execPath, [path.join(fake.dist, 'cli.cjs'), ...args], {
    cwd: options.cwd ?? workspace,
    env: { ...process.env, SALA_DIST: fake.dist },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (part: Buffer) => (stdout += part.toString()));
  child.stderr.on('data', (part: Buffer) => (stderr += part.toString()));
  child.stdin.end(options.input ?? '');
  const ended = new Promise<Ended>((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
  return { child, ended, stderr: () => stderr };
}

const run = (...args: string[]): Promise<Ended> => start(args).ended;
const runEngine = (...args: string[]): Promise<Ended> => start([...args, '--model', fake.model, '--store', fake.store]).ended;

test('usage text', async () => {
  const { code, stdout } = await run('--help');
  assert.equal(code, 0);
  assert.match(stdout, /Examples:[^]*Exit codes: 0 done, 1 failed, 2 wrong usage/);
});

test('wrong usage: exit code 2, the reason on standard error, with --json on standard output too', async () => {
  const calls: [string[], RegExp][] = [
    [['bogus'], /unknown command 'bogus'/],
    [['ask'], /missing required argument 'question'/],
    [['ask', ''], /expected a question/],
    [['ask', 'q', '--wait', 'soon'], /'full', found soon/],
    [['ask', 'q', '--threads', '0'], /at least 1, found 0/],
    [['ask', 'q', '--max-memory', 'much'], /expected a size such as 200MB or 2G, found much/],
    [['ask', 'q', '--activations', 'int4'], /int8, fp32/],
    [['complete', 'a.ts'], /expected FILE:LINE:COLUMN/],
    [['complete', 'a.ts:0:1'], /expected FILE:LINE:COLUMN/],
    [['complete', 'a.ts:9:1'], /expected a line from 1 to 3, found 9/],
    [['complete', 'a.ts:2:99'], /expected a column from 1 to 13 in line 2, found 99/],
    [['complete', 'b.ts:1:1'], /b\.ts/],
    [['logits', '--tokens', 'x.json'], /--out/],
    [['bench', '--prefill', '1,x'], /found x/],
  ];
  await Promise.all(
    calls.map(async ([args, reason]) => {
      const { code, stdout, stderr } = await run(...args, '--json');
      assert.equal(code, 2, `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, reason);
      const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
      assert.equal(error.code, 'invalid_argument');
      assert.match(error.message, reason);
    }),
  );
  const plain = await run('ask');
  assert.equal(plain.stdout, '');
  assert.match(plain.stderr, /^sala: .*\(invalid_argument\)/);
});

test('failures: exit code 1 and the code', async () => {
  const calls: [string[], string][] = [
    [['eval', 'fim'], 'unsupported'],
    [['ask', 'q', '--workspace', 'nowhere'], 'not_a_workspace'],
    [['ask', 'q', '--workspace', 'a.ts'], 'not_a_workspace'],
    [['ask', 'q', '--model', 'nowhere'], 'model_not_found'],
    [['ask', 'refuse', '--model', fake.model, '--store', fake.store], 'context_full'],
    [['coverage', '../outside', '--model', fake.model, '--store', fake.store], 'invalid_argument'],
    [['coverage', 'none.ts', '--model', fake.model, '--store', fake.store], 'invalid_argument'],
  ];
  for (const [args, expected] of calls) {
    const { code, stdout, stderr } = await run(...args, '--json');
    assert.equal(code, 1, `${args.join(' ')}: ${stderr}`);
    assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, expected);
    assert.match(stderr, new RegExp(`\\(${expected}\\)$`, 'm'));
  }
});

test('ask: the answer, where it comes from, and how much was read', async () => {
  const { code, stdout } = await runEngine('ask', 'q');
  assert.equal(code, 0);
  assert.equal(stdout, 'an answer\n\nSources\n  src/a.ts:10–20  62 %\n\nRead 2 of 4 files, 10 of about 20 tokens.\n');
});

test('ask --json: one document with the promised keys', async () => {
  const { stdout } = await runEngine('ask', 'q', '--json');
  const document = JSON.parse(stdout) as Record<string, Record<string, unknown>>;
  assert.equal(document['answer'], 'an answer');
  assert.deepEqual(document['sources'], [{ root: '/w', path: 'src/a.ts', start_line: 10, end_line: 20, weight: 0.62 }]);
  for (const key of ['ingest_s', 'first_token_s', 'tokens_per_s']) assert.equal(typeof document['timings']?.[key], 'number');
  for (const key of ['files', 'tokens', 'total_files', 'total_tokens']) assert.equal(typeof document['coverage']?.[key], 'number');
});

test('export: what is in the file, and what is left out', async () => {
  const { code, stdout, stderr } = await runEngine('export', 'w.pack');
  assert.equal(code, 0);
  assert.equal(stdout, 'w.pack: 2 files, 3 segments, 1.2K tokens, 5 MB\nleft out, over the budget of tokens: big.ts\n');
  assert.match(stderr, /writing 1 KB \(50 %\)/);
  const document = JSON.parse((await runEngine('export', 'w.pack', '--json')).stdout) as Record<string, unknown>;
  assert.deepEqual([document['segments'], document['tokens'], document['bytes']], [3, 1234, 5 << 20]);
});

test('import: what was taken; exit code 1 where something was damaged', async () => {
  const sound = await runEngine('import', 'w.pack');
  assert.equal(sound.code, 0);
  assert.match(sound.stdout, /^w\.pack: 2 files, 3 segments, 1\.2K tokens of 5 MB taken\nmade by another family \(cuda\.1\.kv8\)/);
  const damaged = await runEngine('import', 'damaged.pack', '--json');
  assert.equal(damaged.code, 1);
  assert.match(damaged.stderr, /^sala: segment 00 of a\.ts: checksum of run 1 differs; it is read again$/m);
  assert.equal((JSON.parse(damaged.stdout) as { damaged: number }).damaged, 1);
});

test('packs: signed, and taken only with the signature of the right key', async () => {
  const file = path.join(workspace, 'signed.pack');
  writeFileSync(file, 'the fake engine writes none');
  const keys = ['own', 'other'].map((name) => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    writeFileSync(path.join(workspace, `${name}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    writeFileSync(path.join(workspace, `${name}.pub`), publicKey.export({ type: 'spki', format: 'pem' }));
    return { privateKey, publicKey };
  });
  assert.match((await runEngine('import', 'signed.pack', '--verify-with', 'own.pub')).stderr, /expected a signature in .*signed\.pack\.sig.*\(untrusted\)/);
  const { code, stdout } = await runEngine('export', 'signed.pack', '--sign', 'own.pem');
  assert.equal(code, 0);
  assert.match(stdout, /^signed: signed\.pack\.sig$/m);
  // As anybody can check it.
  const line = Buffer.from(`sala pack sha512 ${createHash('sha512').update(readFileSync(file)).digest('hex')}\n`);
  assert.ok(verify(null, line, keys[0]!.publicKey, Buffer.from(readFileSync(`${file}.sig`, 'utf8'), 'base64')));
  assert.equal((await runEngine('import', 'signed.pack', '--verify-with', 'own.pub')).code, 0);
  const refused: [string[], string][] = [
    [['import', 'signed.pack', '--verify-with', 'other.pub'], 'untrusted'],
    [['import', 'signed.pack', '--verify-with', 'a.ts'], 'invalid_argument'],
    [['export', 'signed.pack', '--sign', 'own.pub'], 'invalid_argument'],
    [['export', 'signed.pack', '--sign', 'none.pem'], 'invalid_argument'],
  ];
  for (const [args, expected] of refused) {
    const { code, stdout } = await runEngine(...args, '--json');
    assert.deepEqual([code, (JSON.parse(stdout) as { error: { code: string } }).error.code], [1, expected], args.join(' '));
  }
  writeFileSync(file, 'the fake engine writes none!');
  assert.match((await runEngine('import', 'signed.pack', '--verify-with', 'own.pub')).stderr, /another file or by another key.*\(untrusted\)/);
});

test('ask -: one document a line, failures among them, and their exit code', async () => {
  const args = ['ask', '-', '--json', '--model', fake.model, '--store', fake.store];
  const { code, stdout } = await start(args, { input: 'one\n\nrefuse\ntwo' }).ended;
  const documents = stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as { question?: string; error?: { code: string } });
  assert.deepEqual(documents.map(({ question, error }) => question ?? error?.code), ['one', 'context_full', 'two']);
  assert.equal(code, 1);
});

test('Ctrl-C: what had come, exit code 130', async () => {
  const { child, ended } = start(['ask', 'long', '--json', '--model', fake.model, '--store', fake.store]);
  await eventually('the engine runs', () => fake.engines().length > 0);
  setTimeout(() => child.kill('SIGINT'), 1000);
  const { code, stdout } = await ended;
  assert.equal(code, 130);
  assert.equal((JSON.parse(stdout) as { stop: string }).stop, 'cancelled');
});

test('complete: the position is the editor\'s, whatever the file\'s bytes', async () => {
  // Column 12 is in the middle of the rocket, whose two UTF-16 units are columns 12 and 13.
  const { stdout } = await runEngine('complete', 'a.ts:1:13', '--json');
  assert.equal((JSON.parse(stdout) as { completion: string }).completion, 'after const a = "');
  const second = await runEngine('complete', `${path.join(workspace, 'a.ts')}:2:6`);
  assert.equal(second.stdout, 'after const a = "🚀";\r\nconst\n');
});

test('ingest and coverage', async () => {
  const ingest = await runEngine('ingest', '--json');
  assert.deepEqual(JSON.parse(ingest.stdout), { files: 2, tokens: 10, encoded_tokens: 6, reused_tokens: 4, tokens_per_s: 100 });
  const all = await runEngine('coverage');
  assert.match(all.stdout, /^in +10 {2}a\.ts\nexcluded +0 {2}b\.lock {2}\(lock_file\)\n\nin: 1 file, 10 tokens; excluded: 1 file\n$/);
  const one = JSON.parse((await runEngine('coverage', 'b.lock', '--json')).stdout) as { files: { rule: string }[] };
  assert.deepEqual(one.files.map(({ rule }) => rule), ['lock_file']);
});
