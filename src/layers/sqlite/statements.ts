/**
 * Prepared statements of one connection, made when they are first used, and rows as typed values.
 *
 * Rows come from our own STRICT tables: their columns have the types the schema says.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import { sql } from "./sql.ts"

export type StatementName = keyof typeof sql

export interface Statements {
  readonly run: (name: StatementName, ...args: ReadonlyArray<SQLInputValue>) => number
  readonly get: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) => Row | undefined
  readonly all: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) => ReadonlyArray<Row>
  readonly each: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) => Iterable<Row>
}

export const prepare = (db: DatabaseSync): Statements => {
  const prepared = new Map<StatementName, StatementSync>()
  const statement = (name: StatementName): StatementSync => {
    let found = prepared.get(name)
    if (found === undefined) {
      found = db.prepare(sql[name])
      prepared.set(name, found)
    }
    return found
  }
  return {
    run: (name, ...args) => Number(statement(name).run(...args).changes),
    get: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) =>
      statement(name).get(...args) as Row | undefined,
    all: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) =>
      statement(name).all(...args) as unknown as ReadonlyArray<Row>,
    each: <Row>(name: StatementName, ...args: ReadonlyArray<SQLInputValue>) =>
      statement(name).iterate(...args) as unknown as Iterable<Row>
  }
}
