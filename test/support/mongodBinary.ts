/**
 * A process that answers where a mongod is, from the cache of mongodb-memory-server or by a download: its last line says
 * `mongod <path>`. A process of its own, since a download can be ended in no other way. While it comes in, it says how far it is.
 */
import { MongoBinary } from "mongodb-memory-server-core"

try {
  console.log(`mongod ${await MongoBinary.getPath()}`)
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
}
