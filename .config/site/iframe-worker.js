// Browsers start no worker from a file. When the pages are read from a disk, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget { // the second name is asked for by the theme
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      const load = (script) => new Promise((resolve, reject) => {
        const element = inside.document.createElement("script");
        Object.assign(element, {src: script, onload: resolve, onerror: reject});
        inside.document.body.append(element);
      });
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", {data}));
      inside.importScripts = async (...scripts) => { for (const script of scripts) await load(script); };
      this.loaded = load(address);
      this.postMessage = async (data) => {
        await this.loaded;
        inside.dispatchEvent(new inside.MessageEvent("message", {data}));
      };
    }
  };
}
