// The part of the repository that Node runs.
exports.add = (...numbers) => numbers.reduce((a, b) => a + b, 0);
