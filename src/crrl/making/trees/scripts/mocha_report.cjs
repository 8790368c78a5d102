// A reporter of mocha: what ran, in the shape of jest's report, which the judge reads.
'use strict';
const fs = require('fs');

module.exports = function Report(runner) {
  const files = new Map();
  function add(test, status, error) {
    const file = test.file || (test.parent && test.parent.file) || '';
    if (!files.has(file)) files.set(file, []);
    const said = error ? String(error.stack || error.message || error) : '';
    files.get(file).push({
      fullName: test.fullTitle(),
      status,
      duration: test.duration || 0,
      failureMessages: error ? [said] : [],
    });
  }
  runner.on('pass', (test) => add(test, 'passed'));
  runner.on('fail', (test, error) => add(test, 'failed', error));
  runner.on('pending', (test) => add(test, 'pending'));
  runner.on('end', () => {
    const testResults = [...files].map(([name, assertionResults]) => ({ name, assertionResults }));
    fs.writeFileSync('.crrl/report.json', JSON.stringify({ testResults }));
  });
};
