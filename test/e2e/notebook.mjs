// Python notebooks as files, from the kinds and sources of their cells.

const metadata = { language_info: { name: 'python' }, kernelspec: { name: 'python3', language: 'python', display_name: 'Python 3' } };

/** @param {readonly (readonly [kind: 'code' | 'markdown', source: string])[]} sources */
export function notebook(sources) {
  const cells = sources.map(([cell_type, source], i) => ({ cell_type, source, metadata: {}, id: `c${i}`, ...(cell_type === 'code' ? { outputs: [], execution_count: null } : {}) }));
  return JSON.stringify({ cells, metadata, nbformat: 4, nbformat_minor: 5 });
}
