/** The writer in a thread of its own: takes a batch of calls, answers with what became of it. */
import { parentPort, workerData } from "node:worker_threads"
import { type Call, openWriter, type WriterOptions } from "./Writer.ts"

if (parentPort === null) throw new Error("this file runs as a worker thread")

const port = parentPort
const writer = openWriter(workerData as WriterOptions)

port.on("message", (message: { readonly calls: ReadonlyArray<Call> } | "close") => {
  if (message === "close") {
    writer.close()
    port.close()
  } else {
    port.postMessage(writer.run(message.calls))
  }
})

port.postMessage("open")
