/** The given cases in test/cases: whoever reads a file says what its cases look like. */
import { readFileSync } from "node:fs"
import { Schema } from "effect"

export const casesOf = <A>(file: string, schema: Schema.Decoder<A>): ReadonlyArray<A> =>
  Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Array(schema)))(
    readFileSync(new URL(`../cases/${file}.json`, import.meta.url), "utf8")
  )
