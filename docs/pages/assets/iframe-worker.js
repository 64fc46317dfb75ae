/*
 * Search from the disk: a browser starts no worker for a page that was opened as a file, so here the
 * worker's script runs in a hidden frame instead, behind the same few methods. Elsewhere: nothing.
 */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = null
      const base = new URL(url, document.baseURI)
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = frame.contentWindow
      // Told in the order in which it was said, also while the script is being loaded.
      let told = Promise.resolve()
      inside.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      const load = script => new Promise((done, failed) => {
        const element = inside.document.createElement("script")
        element.src = new URL(script, base)
        element.onload = done
        element.onerror = failed
        inside.document.documentElement.append(element)
      })
      inside.importScripts = (...scripts) =>
        scripts.reduce((before, script) => before.then(() => load(script)), Promise.resolve())
      told = load(base)
      this.postMessage = data => {
        told = told.then(() => inside.dispatchEvent(new MessageEvent("message", { data })))
      }
      this.terminate = () => frame.remove()
    }
  }
}
