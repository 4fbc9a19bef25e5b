/** All scenarios, in the order in which they run. */
import { aborts } from "./aborts.ts"
import { connection } from "./connection.ts"
import { groups } from "./groups.ts"
import { live } from "./live.ts"
import { pages } from "./pages.ts"
import type { Scenario } from "./Scenario.ts"

export const scenarios: ReadonlyArray<Scenario> = [...connection, ...live, ...groups, ...aborts, ...pages]
