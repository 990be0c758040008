// `sala`: the command table, options and help. Each command is a file of its own, loaded when it is called, so that usage text
// costs no more than Node's own start. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { EngineError } from '../engine/errors';
import { exitCodes, runCommand } from './command';
import { addCommonOptions, atLeast, collect, numbers, type CommonOptions } from './options';
import { Output, UsageError } from './output';
import { version } from '../../package.json';

const exitCodeText = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
Results go to standard output, progress to standard error; with --json the result, or
{"error":{"code","message"}}, is one JSON document.`;

// Whoever reads us may stop reading (`sala … | head`): then there is nobody left to tell.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(exitCodes.done);
});

const program = new Command('sala')
  .description('Asks a model that has read your repository. Everything runs on this machine, offline.')
  .version(version)
  .exitOverride()
  // Told by runMain, in the form of all errors.
  .configureOutput({ outputError: () => {} })
  .showHelpAfterError(false)
  .addHelpText(
    'after',
    `
Examples:
  sala ask "Where are the pooled keys of the sparse layers computed?"
  sala complete src/main.ts:12:5
  sala coverage --json
${exitCodeText}`,
  );

command('ask')
  .description('answers a question about the workspace; "-" takes one question a line from standard input')
  .argument('<question>')
  .option('--scope <glob>', 'only these files may be read for the answer; may be repeated', collect)
  .option('--wait <seconds>', "seconds to read before answering, or 'full' for everything (default: 45)", orWord('full', 0))
  .option('--focus <k>', "segments that the answer sees, or 'all' (default: the model's)", orWord('all', 1))
  .option('--exact', 'the workspace as one sequence, reference semantics')
  .addHelpText('after', examples('sala ask "What does the scheduler do?" --wait full', 'sala ask - --json --scope "src/**" < questions.txt'))
  .action((question: string, options: CommonOptions) => {
    return runCommand(options, async (frame) => (await import('./ask')).ask(frame, question));
  });

command('complete')
  .description('completes at a position of a file')
  .argument('<file:line:column>', 'counted from 1, columns as the editor shows them')
  .addHelpText('after', examples('sala complete src/main.ts:12:5'))
  .action((place: string, options: CommonOptions) => {
    return runCommand(options, async (frame) => (await import('./complete')).complete(frame, place));
  });

command('ingest')
  .description('reads the whole workspace and keeps what was read')
  .option('--watch', 'stay, follow changes, print a line for each update')
  .addHelpText('after', examples('sala ingest --watch'))
  .action((options: CommonOptions) => runCommand(options, async (frame) => (await import('./ingest')).ingest(frame)));

command('coverage')
  .description('shows which files are in, waiting or left out, and by which rule')
  .argument('[path]', 'only this file')
  .addHelpText('after', examples('sala coverage', 'sala coverage src/main.ts --json'))
  .action((file: string | undefined, options: CommonOptions) => {
    return runCommand(options, async (frame) => (await import('./coverage')).coverage(frame, file));
  });

command('logits')
  .description("runs the model on raw token ids and writes the logits of the tail's tokens")
  .requiredOption('--tokens <file>', 'JSON: a list of ids, or a run of a golden case')
  .requiredOption('--out <file>', 'safetensors file to write')
  .option('--run <name>', 'which of the runs of a whole case')
  .option('--exact', 'prefix, segments and tail as one sequence')
  .option('--last <n>', 'only the last n tokens', atLeast(1))
  .option('--blocks', 'also the blocks that sparse layers selected')
  .addHelpText('after', examples('sala logits --model DIR --tokens ids.json --out out.safetensors --activations fp32'))
  .action((options: CommonOptions & { tokens: string; out: string }) => {
    return runCommand(options, async (frame) => (await import('./logits')).logits(frame));
  });

command('read')
  .description('ranks the segments of a raw run by the attention of its question')
  .requiredOption('--tokens <file>', 'JSON: a run of a golden case with prefix, segments and tail')
  .option('--run <name>', 'which of the runs of a whole case')
  .addHelpText('after', examples('sala read --model DIR --tokens tokens.json --run three --json'))
  .action((options: CommonOptions & { tokens: string }) => {
    return runCommand(options, async (frame) => (await import('./read')).read(frame));
  });

command('generate')
  .description('continues raw token ids greedily')
  .requiredOption('--tokens <file>', 'JSON: a list of ids, or a run of a golden case')
  .requiredOption('--n <n>', 'tokens to generate at most', atLeast(1))
  .option('--run <name>', 'which of the runs of a whole case')
  .option('--exact', 'prefix, segments and tail as one sequence')
  .option('--ignore-eos', 'go on after an end token')
  .option('--logits <file>', 'safetensors file for the logits that chose each token')
  .addHelpText('after', examples('sala generate --tokens ids.json --n 16 --ignore-eos --json'))
  .action((options: CommonOptions & { tokens: string; n: number }) => {
    return runCommand(options, async (frame) => (await import('./generate')).generate(frame));
  });

command('bench')
  .description('measures the speed of this machine')
  .option('--prefill <n,…>', 'prompt lengths', numbers(1), [512, 2048])
  .option('--decode-at <n,…>', 'lengths behind which tokens are decoded', numbers(0), [0, 2048])
  .option('--edit <n>', 'tokens that an edit reads anew', atLeast(1), 400)
  .option('--memory <n,…>', 'tokens of synthetic memories that a question is put to', numbers(1), [100_000, 1_000_000])
  .addHelpText('after', examples('sala bench --prefill 512,8192 --decode-at 0,8192 --json'))
  .action((options: CommonOptions & { prefill: number[]; decodeAt: number[]; edit: number; memory: number[] }) => {
    return runCommand(options, async (frame) => (await import('./bench')).bench(frame));
  });

command('doctor')
  .description('looks for what keeps the engine from running here')
  .option('--verify', 'also read the whole store; what is damaged is dropped, to be read again')
  .addHelpText('after', examples('sala doctor'))
  .action((options: CommonOptions) => runCommand(options, async (frame) => (await import('./doctor')).doctor(frame)));

command('export')
  .description('reads the whole workspace and writes its memory into one file, for other machines')
  .argument('<file>')
  .option('--sign <key>', 'file of an Ed25519 private key (PEM): the signature is FILE.sig')
  .addHelpText('after', examples('sala export sala.pack', 'sala export sala.pack --workspace ~/project --sign key.pem --json'))
  .action((file: string, options: CommonOptions) => runCommand(options, async (frame) => (await import('./export')).exportPack(frame, file)));

command('import')
  .description('takes a file that export wrote: what it holds need not be read again, in whatever folder')
  .argument('<file>')
  .option('--verify-with <key>', 'file of an Ed25519 public key (PEM): take nothing without a signature of its owner in FILE.sig')
  .addHelpText('after', examples('sala import sala.pack', 'sala import sala.pack --verify-with public.pem'))
  .action((file: string, options: CommonOptions) => runCommand(options, async (frame) => (await import('./import')).importPack(frame, file)));

command('eval')
  .description('runs a quality suite (not in this version)')
  .argument('<suite>')
  .action((_: string, options: CommonOptions) =>
    runCommand(options, async () => {
      throw new EngineError('unsupported', 'sala eval: this version does not have it');
    }),
  );

void runMain();

/** Wrong usage ends here; everything else within the command. */
async function runMain(): Promise<void> {
  try {
    if (process.argv.length <= 2) program.help({ error: true });
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version were asked for.
    if (error.exitCode === 0) process.exit(exitCodes.done);
    if (error.code !== 'commander.help') {
      new Output(process.argv.includes('--json')).failure(new UsageError(error.message.replace(/^error: /, '')));
      process.stderr.write('sala: see `sala --help` and `sala COMMAND --help`\n');
    }
    process.exit(exitCodes.usage);
  }
}

function command(name: string): Command {
  return addCommonOptions(program.command(name));
}

function orWord<W extends string>(word: W, least: number): (text: string) => number | W {
  return (text) => {
    if (text === word) return word;
    const n = /^\d{1,9}(\.\d+)?$/.test(text) ? Number(text) : NaN;
    if (n >= least) return n;
    throw new InvalidArgumentError(`expected a number of at least ${least} or '${word}', found ${text}.`);
  };
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}\n`).join('')}${exitCodeText}`;
}
