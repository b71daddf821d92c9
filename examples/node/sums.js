// Adds numbers, so that there is something to test.
exports.add = (...numbers) => numbers.reduce((sum, n) => sum + n, 0);
