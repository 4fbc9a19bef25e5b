/** Whether the server that tests run on has transactions: replica sets and sharded clusters do. */
import { MongoClient } from "mongodb"

export const noTransactions =
  "the server of TEST_MONGO_URL has no transactions; give a replica set to run this"

export const hasTransactions = async (url: string): Promise<boolean> => {
  const client = new MongoClient(url, { serverSelectionTimeoutMS: 5_000 })
  try {
    const hello = await client.db("admin").command({ hello: 1 })
    return typeof hello["setName"] === "string" || hello["msg"] === "isdbgrid"
  } finally {
    await client.close()
  }
}
