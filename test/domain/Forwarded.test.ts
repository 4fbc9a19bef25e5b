/** What is believed of a proxy's headers: its own entry, and no other. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import * as Forwarded from "../../src/domain/Forwarded.ts"

describe("the address of a client behind a proxy", () => {
  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["198.51.100.1, 192.0.2.7", "192.0.2.7"],
    ["10.0.0.1,192.0.2.7:4711", "192.0.2.7"],
    ["2001:db8::7", "2001:db8::7"],
    ["[2001:db8::7]:4711", "2001:db8::7"],
    ["unknown", undefined],
    ["192.0.2.7, a name\n", undefined],
    ["", undefined],
    [undefined, undefined]
  ])("of %j is %j", (header, address) => {
    expect(Forwarded.address(header)).toBe(address)
  })

  it("is the proxy's entry, whatever the client put before it", () => {
    fc.assert(
      fc.property(fc.string(), fc.ipV4(), (forged, own) => {
        expect(Forwarded.address(`${forged}, ${own}`)).toBe(own)
      })
    )
  })

  it("is taken from the last of several headers", () => {
    expect(Forwarded.address(["198.51.100.1", "192.0.2.7"])).toBe("192.0.2.7")
  })
})

it("the host and the scheme are the last ones, too", () => {
  expect(Forwarded.last("evil.example, hub.example")).toBe("hub.example")
  expect(Forwarded.last(undefined)).toBeUndefined()
})
