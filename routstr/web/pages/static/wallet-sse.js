// Server-sent events from bytes that arrive in any pieces (WHATWG HTML 9.2.5): data and comments,
// for the node tells what an answer cost in a comment.

/** Calls `onData(text)` and `onComment(text)` for what `feed(bytes)` brings; `end` is the rest. */
export class EventReader {
  constructor({ onData, onComment }) {
    this.onData = onData;
    this.onComment = onComment;
    this.decoder = new TextDecoder();
    this.rest = "";
    this.data = [];
  }

  feed(bytes) {
    this.rest += this.decoder.decode(bytes, { stream: true });
    // A CR at the very end may be half of a line end.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  end() {
    if (this.rest) this.line(this.rest.replace(/\r$/, ""));
    this.line("");
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.onData(this.data.join("\n"));
      this.data = [];
    } else if (line.startsWith(":")) {
      this.onComment(line.slice(1).replace(/^ /, ""));
    } else if (line.startsWith("data:")) {
      this.data.push(line.slice(5).replace(/^ /, ""));
    }
  }
}
