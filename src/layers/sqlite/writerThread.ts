/**
 * The writer in a thread of its own: takes batches of calls, answers each with what became of it.
 *
 * Batches that came while the last commit was under way are one transaction.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import { type BatchResult, type Call, openWriter, type WriterOptions } from "./Writer.ts"

type Message = { readonly calls: ReadonlyArray<Call> } | "close"

if (parentPort === null) throw new Error("this file runs as a worker thread")

const port = parentPort
const writer = openWriter(workerData as WriterOptions)

/** The part of a result that is about these calls. */
const partOf = (result: BatchResult, from: number, count: number): BatchResult =>
  result._tag === "Committed" ? { ...result, results: result.results.slice(from, from + count) } : result

port.on("message", (first: Message) => {
  const batches: Array<ReadonlyArray<Call>> = []
  let message: Message | undefined = first
  while (message !== undefined && message !== "close") {
    batches.push(message.calls)
    message = receiveMessageOnPort(port)?.message as Message | undefined
  }
  if (batches.length > 0) {
    const result = writer.run(batches.flat())
    let from = 0
    for (const { length } of batches) {
      port.postMessage(partOf(result, from, length))
      from += length
    }
  }
  if (message === "close") {
    writer.close()
    port.close()
  }
})

port.postMessage("open")
