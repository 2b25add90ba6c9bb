// Hands on what the microphone hears, mixed to one channel.
registerProcessor("microphone", class extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) this.port.postMessage(channels[0].map((_, i) => channels.reduce((sum, c) => sum + c[i], 0) / channels.length));
    return true;
  }
});
