/**
 * Where the hubs of tests keep their events: in memory or in a file, unless TEST_HUB_STORE=mongo wants each of them on a
 * database of its own, on the server that TEST_MONGO_URL names.
 */
import { join } from "node:path"
import { dropDatabase, mongoUrl, urlOfNewDatabase } from "./mongo.ts"
import { temporaryDirectory } from "./temporary.ts"

export type StoreEnv = Readonly<Record<string, string>>

const made: Array<string> = []

const onMongo = (): StoreEnv | undefined => {
  if (process.env["TEST_HUB_STORE"] !== "mongo") return undefined
  if (mongoUrl === undefined) throw new Error("TEST_HUB_STORE=mongo needs TEST_MONGO_URL")
  const url = urlOfNewDatabase(mongoUrl)
  made.push(url)
  return { MONGO_URL: url }
}

/** For a hub that may forget everything when it ends. */
export const anyStore = (): StoreEnv => onMongo() ?? { HUB_STORE: "memory:" }

/** For hubs that come back to what was there before. */
export const durableStore = (path: string = join(temporaryDirectory(), "hub.db")): StoreEnv =>
  onMongo() ?? { HUB_STORE: `sqlite:${path}` }

/** After each file. */
export const dropStores = async (): Promise<void> => {
  await Promise.all(made.splice(0).map(dropDatabase))
}
