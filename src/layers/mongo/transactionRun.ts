/**
 * What a run of `MongoTransaction` remembers over its attempts, for the stores that take part in it.
 *
 * A transaction may run several times until one of them is committed, and it may be unknown whether one was. So ids
 * and times that nobody gave are drawn once, and each record that was added can be looked for afterwards.
 */
import * as Context from "effect/Context"

export interface AddedRecord {
  readonly topic: string
  readonly id: string
  /** Whether it is there for good, and is the one that was added. */
  readonly isThere: () => Promise<boolean>
}

export class TransactionRun extends Context.Service<
  TransactionRun,
  {
    /** The n-th draw of each attempt answers the same. */
    readonly draw: (make: () => { readonly id: string; readonly ts: number }) => {
      readonly id: string
      readonly ts: number
    }
    readonly added: (record: AddedRecord) => void
  }
>()("event-hub/layers/mongo/transactionRun/TransactionRun") {}
