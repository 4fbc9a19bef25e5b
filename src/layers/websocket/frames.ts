/**
 * Messages as text, and texts as WebSocket frames.
 *
 * Frames are made here and written to the socket as they are, so that one buffer serves a thousand
 * subscribers. That is safe next to `ws`, which reads, pings and closes: without compression it writes each of
 * its own frames in one go as well.
 */
import { toJson } from "../../domain/Event.ts"
import type { GroupEvent } from "../../services/GroupDelivery.ts"
import type { LiveBatch } from "../../services/LiveFeed.ts"

/** A final text frame, not masked: RFC 6455, section 5.2. */
export const textFrame = (text: string): Buffer => {
  const length = Buffer.byteLength(text)
  const header = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(header + length)
  frame[0] = 0x81
  if (header === 2) frame[1] = length
  else if (header === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(Math.floor(length / 2 ** 32), 2)
    frame.writeUInt32BE(length >>> 0, 6)
  }
  frame.write(text, header, "utf8")
  return frame
}

/** The messages of a batch, for every live subscriber of its pattern. */
export const liveMessages = ({ pattern, records }: LiveBatch): ReadonlyArray<string> => {
  const sub = JSON.stringify(pattern.name)
  return records.map(
    (record) =>
      `{"op":"EVENT","sub":${sub},"topic":${JSON.stringify(record.topic)},"event":${toJson(record)}}`
  )
}

/** The message of one delivery to a member of a group. */
export const groupMessage = (pattern: string, group: string, event: GroupEvent): string => {
  const { attempt, deadline, record, redelivered } = event
  return (
    `{"op":"EVENT","sub":${JSON.stringify(pattern)},"topic":${JSON.stringify(record.topic)},` +
    `"group":${JSON.stringify(group)},"event":${toJson(record)},` +
    `"ctx":{"attempt":${attempt},"redelivered":${redelivered},"deadline":${deadline}}}`
  )
}

/** A frame holds at most this many messages. */
export const maxMessages = 1_000

const arrayFrames = (messages: ReadonlyArray<string>): ReadonlyArray<Buffer> => {
  const frames: Array<Buffer> = []
  for (let at = 0; at < messages.length; at += maxMessages) {
    frames.push(textFrame(`[${messages.slice(at, at + maxMessages).join(",")}]`))
  }
  return frames
}

/** How the messages of a batch are framed: all in one for clients that take arrays, else each in its own. */
export type Framing = "array" | "single"

/** The frames of a batch, made once for all subscribers that are framed alike. */
export const liveFrames = (batch: LiveBatch, framing: Framing): ReadonlyArray<Buffer> => {
  const made = batch.shared.get(framing)
  if (made !== undefined) return made as ReadonlyArray<Buffer>
  const messages = liveMessages(batch)
  const frames = framing === "array" ? arrayFrames(messages) : messages.map(textFrame)
  batch.shared.set(framing, frames)
  return frames
}
