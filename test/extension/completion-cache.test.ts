// The completion cache: what is answered without the engine, and what is not offered again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CompletionCache, type Offer } from '../../extension/engine/completion/cache';

const doc = 'file:///a.ts';

/** A document with a cursor, edited as the editor would, the cache told of each edit. */
class Typist {
  readonly cache = new CompletionCache();
  text: string;
  offset: number;

  constructor(withCursor: string) {
    this.offset = withCursor.indexOf('█');
    this.text = withCursor.replace('█', '');
  }

  suggest(text: string, replaced = 0): this {
    this.cache.put({ document: doc, before: this.text.slice(0, this.offset), after: this.text.slice(this.offset), replaced, text });
    return this;
  }

  insert(text: string): this {
    this.text = this.text.slice(0, this.offset) + text + this.text.slice(this.offset);
    this.offset += text.length;
    this.cache.edited(doc, this.text, this.offset, text);
    return this;
  }

  type(text: string): this {
    for (const character of text) this.insert(character);
    return this;
  }

  backspace(n: number): this {
    for (let i = 0; i < n; i += 1) {
      this.text = this.text.slice(0, this.offset - 1) + this.text.slice(this.offset);
      this.offset -= 1;
      this.cache.edited(doc, this.text, this.offset, '');
    }
    return this;
  }

  elsewhere(change: (text: string) => string, shift = 0): this {
    const cursor = this.offset;
    this.text = change(this.text);
    this.cache.edited(doc, this.text, 0, 'x');
    this.offset = cursor + shift;
    return this;
  }

  offered(): string | null {
    return this.offer()?.text ?? null;
  }

  offer(): Offer | null {
    return this.cache.find(doc, this.text, this.offset);
  }
}

const start = (): Typist => new Typist('let a = █;\nlet b = 2;\n').suggest('alpha(beta, gamma)');

test('the same place is answered', () => assert.equal(start().offered(), 'alpha(beta, gamma)'));
test('typing along leaves the rest', () => assert.equal(start().type('alp').offered(), 'ha(beta, gamma)'));
test('typing something else drops it', () => assert.equal(start().type('alq').offered(), null));
test('and it does not come back by deleting that', () => assert.equal(start().type('q').backspace(1).offered(), null));
test('deleting what was typed along brings it back', () => assert.equal(start().type('alp').backspace(2).offered(), 'lpha(beta, gamma)'));
test('accepted word by word the rest stays', () => {
  const typist = start().insert('alpha');
  assert.equal(typist.offered(), '(beta, gamma)');
  assert.equal(typist.insert('(beta').offered(), ', gamma)');
  assert.equal(typist.insert(', gamma)').offered(), null);
});
test('an edit elsewhere drops it', () => {
  assert.equal(start().elsewhere((t) => t.replace('b = 2', 'b = 3')).offered(), null);
  assert.equal(start().elsewhere((t) => `// x\n${t}`, 5).offered(), null);
});
test('another document has its own', () => {
  const typist = start();
  assert.equal(typist.cache.find('file:///b.ts', typist.text, typist.offset), null);
});
test('another cursor in the same text is another place', () => {
  const typist = start();
  assert.equal(typist.cache.find(doc, typist.text, 0), null);
});

test('accepted and deleted past its beginning, it is not offered at the same letters', () => {
  const typist = new Typist('    ret█\n').suggest('urn total');
  typist.insert('urn total').backspace(12);
  typist.type('ret');
  assert.equal(typist.offered(), null);
  // A new answer of the engine with the same text is refused too, and another is not.
  const at = { start: typist.offset, text: 'urn total' };
  assert.equal(typist.cache.isRefused(doc, typist.text, typist.offset, at), true);
  assert.equal(typist.cache.isRefused(doc, typist.text, typist.offset, { ...at, text: 'urn 0' }), false);
  // Once more is typed it may come again.
  typist.type('urn ');
  assert.equal(typist.cache.isRefused(doc, typist.text, typist.offset, { start: typist.offset, text: 'total' }), false);
});
test('asking by command allows it again', () => {
  const typist = new Typist('    ret█\n').suggest('urn total').insert('urn total').backspace(12).type('ret');
  typist.cache.allow(doc);
  assert.equal(typist.cache.isRefused(doc, typist.text, typist.offset, { start: typist.offset, text: 'urn total' }), false);
});

test('a suggestion that replaces indentation keeps its range, and is gone once taken', () => {
  const typist = new Typist('    x\n            █\n').suggest('    return found', 12);
  assert.deepEqual(typist.offer(), { start: 6, text: '    return found' });
  typist.text = '    x\n    return found\n';
  typist.offset = typist.text.length - 1;
  typist.cache.edited(doc, typist.text, typist.offset, '    return found');
  assert.equal(typist.offered(), null);
});

test('whatever is offered completes to the suggestion', () => {
  fc.assert(
    fc.property(
      fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), fc.string({ minLength: 1, maxLength: 12 }),
      fc.array(fc.oneof(fc.constant(-1), fc.nat(11), fc.string({ minLength: 1, maxLength: 2 })), { maxLength: 12 }),
      (before, after, text, steps) => {
        const typist = new Typist(`${before.replaceAll('█', '')}█${after.replaceAll('█', '')}`);
        const whole = typist.text.slice(0, typist.offset) + text;
        const rest = typist.text.slice(typist.offset);
        typist.suggest(text);
        for (const step of steps) {
          if (step === -1) {
            if (typist.offset > 0) typist.backspace(1);
          } else if (typeof step === 'number') {
            // The next character of the suggestion, if the cursor stands in it.
            const next = whole.charAt(typist.offset);
            if (next !== '') typist.insert(next);
          } else typist.insert(step);
          const offer = typist.offer();
          if (offer !== null) assert.equal(typist.text.slice(0, offer.start) + offer.text + typist.text.slice(typist.offset), whole + rest);
        }
      },
    ),
    { numRuns: 5000 },
  );
});
