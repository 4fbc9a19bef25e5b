/**
 * Asks before something is changed: what would happen is shown first, where the hub can say so, then a button that
 * names it, and room for the reason that goes to the hub's log.
 */
import { button, byId, type Content, field, form, h, input, put } from "./dom.ts"
import { trouble } from "./router.ts"

/** What would happen. */
export interface Outlook {
  /** What the button that does it says. */
  readonly does: string
  readonly details: Content
  /** Nothing would happen: there is nothing to confirm. */
  readonly isNothing?: boolean
}

export interface Question {
  readonly title: string
  readonly about: Content
  /** What can be chosen; changing it takes the outlook back. */
  readonly fields?: ReadonlyArray<HTMLElement>
  /** A dry run, or what is known without one. */
  readonly outlook: () => Promise<Outlook>
  /** Does it, and says what was done. */
  readonly run: (reason: { readonly reason?: string }) => Promise<string>
  readonly isDangerous?: boolean
}

/** Says it where a screen reader hears it, and everybody else sees it for a while. */
export const say = (text: string): void => {
  const note = h("p", {}, text)
  byId("notes").append(note)
  setTimeout(() => note.remove(), 8_000)
}

/** Asks; `done` follows when it was done. */
export const ask = (question: Question, done: () => void): void => {
  const { about, fields = [], isDangerous = false, outlook, run, title } = question
  const opener = document.activeElement
  const reason = input({ id: "reason", maxlength: 1_000, placeholder: "ticket, or what happened" })
  const result = h("div", { class: "outlook", role: "status" })
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" })
  const close = () => {
    dialog.close()
    dialog.remove()
    if (opener instanceof HTMLElement && opener.isConnected) opener.focus()
  }
  const fail = (error: unknown) => put(result, trouble(error))

  /** What is being asked for; what was chosen meanwhile makes its answer worthless. */
  let turn = 0
  const confirm = h("div", { class: "buttons" })
  const reset = () => {
    turn++
    put(result)
    put(
      confirm,
      h("button", { type: "submit", class: "primary" }, "Show what would happen"),
      button("Cancel", close)
    )
  }
  const look = async () => {
    const mine = ++turn
    put(result, h("p", { class: "quiet" }, "Asking the hub …"))
    try {
      const { details, does, isNothing = false } = await outlook()
      if (mine !== turn) return
      put(result, details)
      const yes = button(does, act, { class: isDangerous ? "primary danger" : "primary", id: "confirm" })
      put(confirm, !isNothing && yes, button(isNothing ? "Close" : "Cancel", close))
      if (fields.length > 0 && !isNothing) yes.focus()
    } catch (error) {
      if (mine === turn) fail(error)
    }
  }
  const act = async () => {
    for (const one of confirm.querySelectorAll("button")) one.disabled = true
    try {
      const text = await run(reason.value.trim() === "" ? {} : { reason: reason.value.trim() })
      close()
      say(text)
      done()
    } catch (error) {
      reset()
      fail(error)
    }
  }

  const choices = h("div", { class: "fields" }, ...fields)
  choices.addEventListener("input", reset)
  dialog.append(
    form(
      {},
      look,
      h("h2", { id: "dialog-title" }, title),
      h("div", {}, about),
      choices,
      field("Reason, for the hub's log", reason),
      result,
      confirm
    )
  )
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault()
    close()
  })
  reset()
  document.body.append(dialog)
  dialog.showModal()
  if (fields.length === 0) void look()
}
