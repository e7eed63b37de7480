// Server-sent events (WHATWG HTML, 9.2): the data of each event, of which OpenAI's streams use nothing else.

/** @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string>} */
export async function* events(stream) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  let rest = "", /** @type {string[]} */ data = [];
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, {stream: true})).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines.map(text => text.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    await reader.cancel();
  }
}
