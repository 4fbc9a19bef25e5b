/**
 * A group member in a process of its own, which dies by SIGKILL when it crashes. What it has written down survives it:
 * a line of the file for each thing seen.
 */
import { openSync, writeSync } from "node:fs"
import { GroupMember, type GroupMemberOptions } from "./GroupMember.ts"

const [options, path] = process.argv.slice(2)
const file = openSync(path!, "a")

const member = new GroupMember(JSON.parse(options!) as GroupMemberOptions, {
  write: (seen) =>
    void writeSync(
      file,
      seen.map(({ at, attempt, id, what }) => `${what} ${id} ${attempt} ${at}\n`).join("")
    ),
  crash: () => process.kill(process.pid, "SIGKILL"),
  joined: () => console.log("joined"),
  failed: (problem) => {
    console.error(problem)
    process.exit(1)
  }
})

// Whoever started it is gone.
process.stdin.on("end", () => {
  member.stop()
  process.exit(0)
})
process.stdin.resume()
