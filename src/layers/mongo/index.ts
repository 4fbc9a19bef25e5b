/** MongoDB as the store of any number of hubs: `event-hub/mongo`. */
export * as MongoDatabase from "./MongoDatabase.ts"
