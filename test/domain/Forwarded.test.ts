/** What is believed of a proxy's headers: its own entry, and no other. */
import { isIP } from "node:net"
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
    ["999.999.999.999", undefined],
    ["1.2.3", undefined],
    ["1.2.3.4.", undefined],
    ["01.2.3.4", undefined],
    [":::::", undefined],
    ["1::2::3", undefined],
    ["[192.0.2.7]", undefined],
    ["[]", undefined],
    ["1.2.3.4::", undefined],
    ["::ffff:192.0.2.7", "::ffff:192.0.2.7"],
    ["::", "::"],
    ["", undefined],
    [undefined, undefined]
  ])("of %j is %j", (header, address) => {
    expect(Forwarded.address(header)).toBe(address)
  })

  const pieces = fc.constantFrom(
    "0",
    "1",
    "25",
    "255",
    "256",
    "f",
    "ffff",
    "0g",
    ":",
    "::",
    ".",
    "1.2.3.4",
    "%e"
  )
  const texts = fc.oneof(
    fc.array(pieces, { maxLength: 16 }).map((all) => all.join("")),
    fc
      .array(fc.constantFrom("0", "ab", "", "1.2.3.4", "12345"), { maxLength: 10 })
      .map((all) => all.join(":")),
    fc.array(fc.nat(300), { minLength: 3, maxLength: 5 }).map((all) => all.join(".")),
    fc.ipV4(),
    fc.ipV6()
  )

  it("is one, as Node sees it, or nothing", () => {
    fc.assert(
      fc.property(texts, (text) => {
        // A port behind an address without brackets, and the zone of a link, are no part of it.
        fc.pre(!text.includes("%") && !/^[\d.]+:\d+$/.test(text))
        expect(Forwarded.address(text)).toBe(isIP(text) === 0 ? undefined : text)
        expect(Forwarded.address(`[${text}]:80`)).toBe(isIP(text) === 6 ? text : undefined)
        expect(Forwarded.address(`${text}:80`) === text).toBe(isIP(text) === 4)
      }),
      { numRuns: 2_000 }
    )
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
