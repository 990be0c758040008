// What 8 bit costs where a user sees it: the question set of test/quality, answered with exact arithmetic and as the product does it.

import { parseArgs } from 'node:util';
import { askAll, score, type Scores } from '../../test/quality/questions';

const usage = `node bench/quality-questions.mjs [--verbose]

  Reads the repository of test/quality and asks its questions twice, with activations, keys and values in fp32 and in 8 bit.
  Minutes for 8 bit, some half an hour for fp32. --verbose prints each miss.
`;
const { values } = parseArgs({ options: { verbose: { type: 'boolean' }, help: { type: 'boolean' } } });

if (values.help) process.stderr.write(usage);
else main();

function main(): void {
  const say = values.verbose ? console.log : (): void => undefined;
  const runs = (['fp32', 'int8'] as const).map((activations) => {
    console.error(`${activations} …`);
    const answers = askAll(['--activations', activations]);
    return { answers, scores: score(answers, say) };
  });
  const [exact, rounded] = [runs[0]!, runs[1]!];
  for (const name of Object.keys(exact.scores) as (keyof Scores)[]) {
    const { hits, of } = exact.scores[name];
    console.log(`${name.padEnd(12)} fp32 ${hits} of ${of}, int8 ${rounded.scores[name].hits} of ${of}`);
  }
  const same = exact.answers.filter(({ answer }, i) => answer === rounded.answers[i]!.answer).length;
  console.log(`the same answer to the letter: ${same} of ${exact.answers.length}`);
}
