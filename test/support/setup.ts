/** Runs around every test file. */
import { afterAll } from "vitest"
import { killLeftovers } from "./HubProcess.ts"

afterAll(killLeftovers)
