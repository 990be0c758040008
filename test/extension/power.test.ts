// Whether the machine runs on battery: what each system says, and how often it is asked.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { pmsetOnBattery, Power, powerSource, supplyOnBattery, windowsOnBattery, type PowerSource } from '../../extension/host/power';

/** A folder as Linux has one of all supplies. */
function supplies(t: TestContext, values: Readonly<Record<string, Readonly<Record<string, string>>>>): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'sala-power-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, files] of Object.entries(values)) {
    mkdirSync(path.join(folder, name));
    for (const [file, text] of Object.entries(files)) writeFileSync(path.join(folder, name, file), `${text}\n`);
  }
  return folder;
}

const discharging = { type: 'Battery', status: 'Discharging' };

test('Linux: a battery is used up, and no mains supply is on', async (t) => {
  const cases: [string, Parameters<typeof supplies>[1], boolean][] = [
    ['unplugged', { AC: { type: 'Mains', online: '0' }, BAT0: discharging }, true],
    ['a battery alone', { BAT0: discharging }, true],
    ['one of two batteries', { BAT0: { type: 'Battery', status: 'Not charging' }, BAT1: discharging }, true],
    ['plugged in', { AC: { type: 'Mains', online: '1' }, BAT0: { type: 'Battery', status: 'Charging' } }, false],
    ['plugged in, too weak to charge', { 'ucsi-source': { type: 'USB', online: '1' }, BAT0: discharging }, false],
    ['full', { AC: { type: 'Mains', online: '1' }, BAT0: { type: 'Battery', status: 'Full' } }, false],
    ['a mouse', { hidpp_battery_0: { ...discharging, scope: 'Device' } }, false],
    ['no supply', {}, false],
    ['a supply that says nothing', { BAT0: {} }, false],
  ];
  for (const [name, values, expected] of cases) assert.equal(await supplyOnBattery(supplies(t, values)), expected, name);
  assert.equal(await supplyOnBattery('/nowhere/power_supply'), false);
});

test('macOS and Windows: what their programs print', () => {
  const batt = (source: string, battery: string): string => `Now drawing from '${source}'\n -InternalBattery-0 (id=4653155)\t${battery} present: true\n`;
  assert.equal(pmsetOnBattery(batt('Battery Power', '71%; discharging; 4:32 remaining')), true);
  assert.equal(pmsetOnBattery(batt('AC Power', '71%; charging; 1:02 remaining')), false);
  assert.equal(pmsetOnBattery("Now drawing from 'AC Power'\n"), false);
  for (const text of ['1\r\n', '4\r\n', '2\r\n1\r\n']) assert.equal(windowsOnBattery(text), true, JSON.stringify(text));
  for (const text of ['', '\r\n', '2\r\n', '3\r\n', '6\r\n8\r\n', '11\r\n']) assert.equal(windowsOnBattery(text), false, JSON.stringify(text));
});

test('a program that cannot be run is said to be so, and waited for by nobody', async (t) => {
  // None of these is here, whichever system this is.
  for (const platform of ['darwin', 'win32'] as const) {
    if (process.platform !== platform) await assert.rejects(powerSource(platform, undefined).isOnBattery(), { code: 'ENOENT' });
  }
  assert.equal(await powerSource('win32', supplies(t, { BAT0: discharging })).isOnBattery(), true, 'the folder that is named');
});

/** Answers what it is told to, and counts how often it was asked. */
class FakeSource implements PowerSource {
  readonly every_ms = 1000;
  asked = 0;
  answer: boolean | Error = false;

  async isOnBattery(): Promise<boolean> {
    this.asked += 1;
    if (this.answer instanceof Error) throw this.answer;
    return this.answer;
  }
}

/** Answers that are under way have come. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('it is asked at once and then from time to time, while somebody wants to know; only another answer is told', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const source = new FakeSource();
  const told: boolean[] = [];
  const power: Power = new Power(source, () => told.push(power.onBattery));
  t.after(() => power.dispose());
  await settled();
  assert.equal(source.asked, 0, 'nobody wants to know');

  for (let i = 0; i < 5; i += 1) power.watch(true);
  await settled();
  assert.deepEqual([source.asked, told], [1, []]);
  source.answer = true;
  t.mock.timers.tick(999);
  power.watch(true);
  assert.equal(source.asked, 1, 'not so soon');
  t.mock.timers.tick(1);
  await settled();
  assert.deepEqual([source.asked, told], [2, [true]]);
  t.mock.timers.tick(1000);
  await settled();
  assert.deepEqual([source.asked, told], [3, [true]]);

  power.watch(false);
  source.answer = false;
  t.mock.timers.tick(5000);
  await settled();
  assert.deepEqual([source.asked, told], [3, [true]], 'nobody wants to know any more');
  power.watch(true);
  await settled();
  assert.deepEqual([source.asked, told], [4, [true, false]], 'at once');
});

test('a source that fails changes nothing, and is asked again; behind its end nothing is told', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const source = new FakeSource();
  source.answer = true;
  let told = 0;
  const power = new Power(source, () => (told += 1));
  power.watch(true);
  await settled();
  source.answer = new Error('no such program');
  t.mock.timers.tick(1000);
  await settled();
  assert.deepEqual([source.asked, power.onBattery, told], [2, true, 1]);
  source.answer = false;
  t.mock.timers.tick(1000);
  power.dispose();
  await settled();
  t.mock.timers.tick(5000);
  power.watch(true);
  await settled();
  assert.deepEqual([source.asked, told], [3, 1]);
});
