const { test } = require('node:test');
const assert = require('node:assert');
const { add } = require('./web.js');

test('the sum of none is 0', () => assert.strictEqual(add(), 0));
test('adds all', () => assert.strictEqual(add(1, 2, 3), 6));
