// Which lines of the project ran, from what NODE_V8_COVERAGE left in a folder: {path: [line, ...]}.
'use strict';
const fs = require('fs');
const path = require('path');
const { fileURLToPath } = require('url');

const [folder, root] = process.argv.slice(-2);
const found = {};
for (const name of fs.readdirSync(folder)) {
  for (const { url, functions } of JSON.parse(fs.readFileSync(path.join(folder, name))).result) {
    if (!url.startsWith('file://')) continue;
    const place = path.relative(root, fileURLToPath(url));
    if (place.startsWith('..') || place.includes('node_modules')) continue;
    const text = fs.readFileSync(path.join(root, place), 'utf8');
    const ran = new Uint8Array(text.length);
    const ranges = functions.flatMap((f) => f.ranges);
    ranges.sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset); // the inner ones last
    for (const range of ranges) ran.fill(range.count > 0 ? 1 : 0, range.startOffset, range.endOffset);
    const lines = (found[place] = found[place] || new Set());
    let line = 1;
    for (let at = 0; at < text.length; at++) {
      if (text[at] === '\n') line++;
      else if (ran[at] && text[at].trim()) lines.add(line);
    }
  }
}
process.stdout.write(JSON.stringify(Object.fromEntries(Object.entries(found).map(([name, lines]) => [name, [...lines]]))));
