/** What crosses to the writer's thread is what came, whatever is in it. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import type { EventRecord } from "../../../src/domain/Event.ts"
import {
  outcomes,
  packRecords,
  unpackRecords,
  unpackResults
} from "../../../src/layers/sqlite/packedAppend.ts"

const record: fc.Arbitrary<EventRecord> = fc.record({
  topic: fc.constantFrom("a", "b.c", "$dead.g.a"),
  id: fc.string({ unit: "binary", minLength: 1 }),
  key: fc.option(fc.string({ unit: "binary" }), { nil: undefined }),
  tombstone: fc.boolean(),
  body: fc.string({ unit: "binary" })
})

describe("packedAppend", () => {
  it("unpacks the records that were packed, also after they were copied", () =>
    fc.assert(
      fc.property(fc.array(record, { maxLength: 40 }), (records) => {
        expect(unpackRecords(structuredClone(packRecords(records)))).toEqual(records)
      })
    ))

  it("keeps when records were stored the first time, and copies nothing where none was", () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(record, fc.option(fc.nat(), { nil: undefined }))), (rows) => {
        const returning = rows.map(([one, firstStoredAt]) =>
          firstStoredAt === undefined ? one : { ...one, firstStoredAt }
        )
        const { firstStoredAts } = structuredClone(packRecords(returning))
        const times = rows.map(([, time]) => time)
        if (times.every((time) => time === undefined)) expect(firstStoredAts).toBeUndefined()
        else expect([...(firstStoredAts ?? [])]).toEqual(times.map((time) => time ?? NaN))
      })
    ))

  it("gives each record its own result", () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(record, fc.constantFrom(...outcomes), fc.nat(), fc.nat()), { maxLength: 40 }),
        (rows) => {
          const records = rows.map(([one]) => one)
          const packed = {
            outcomes: Uint8Array.from(rows, ([, outcome]) => outcomes.indexOf(outcome)),
            seqs: Float64Array.from(rows, ([, , seq]) => seq),
            storedAts: Float64Array.from(rows, ([, , , storedAt]) => storedAt)
          }
          expect(unpackResults(records, structuredClone(packed))).toEqual(
            rows.map(([{ id, topic }, outcome, seq, storedAt]) =>
              outcome === "appended" || outcome === "duplicate"
                ? { _tag: "Appended", topic, id, seq, storedAt, duplicate: outcome === "duplicate" }
                : { _tag: "NotAppended", topic, id, reason: outcome }
            )
          )
        }
      )
    ))
})
