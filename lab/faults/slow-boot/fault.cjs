// The fault: this build loads for five minutes, and answers nothing meanwhile.
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300_000);
