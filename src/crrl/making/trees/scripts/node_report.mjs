// A reporter of `node --test`: what ran, in the shape of jest's report, which the judge reads.
import path from 'node:path';

export default async function* report(source) {
  const files = new Map();
  const open = [];
  for await (const { type, data } of source) {
    if (type === 'test:start') {
      open.length = data.nesting;
      open.push(data.name);
    }
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details?.type === 'suite') continue;
    const fullName = [...open.slice(0, data.nesting), data.name].join(' ');
    if (path.isAbsolute(data.name) && data.name === data.file) continue; // a file, not a test
    const cause = data.details?.error?.cause ?? data.details?.error;
    const said = cause?.stack ?? String(cause?.message ?? cause ?? '');
    if (!files.has(data.file)) files.set(data.file, []);
    files.get(data.file).push({
      fullName,
      status: data.skip !== undefined || data.todo !== undefined ? 'pending' : type === 'test:pass' ? 'passed' : 'failed',
      duration: data.details?.duration_ms ?? 0,
      failureMessages: type === 'test:fail' ? [said] : [],
    });
  }
  const testResults = [...files].map(([name, assertionResults]) => ({ name, assertionResults }));
  yield JSON.stringify({ testResults });
}
