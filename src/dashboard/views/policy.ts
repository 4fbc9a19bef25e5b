/** Why a token may do something, or why not: which rule decides, and why the others do not. */
import { can, type Explained, get, post } from "../api.ts"
import { badge, field, form, h, input, put, quiet, select } from "../dom.ts"
import { href, trouble, type View } from "../router.ts"

export const policy: View = async ({ add, head, query, signal }) => {
  head("Policy")
  const action = select(
    { subscribe: "subscribe", publish: "publish", admin: "administrate" },
    query.get("action") ?? "subscribe",
    { id: "action" }
  )
  const topic = input({
    id: "topic",
    required: true,
    value: query.get("topic") ?? "",
    placeholder: "orders.**",
    class: "mono"
  })
  const group = input({ id: "group", value: query.get("group") ?? "", placeholder: "none" })
  const text = h("textarea", { id: "policy", rows: 6, spellcheck: "false", class: "mono" })
  const result = h("div", { role: "status", id: "result" })
  const mayTry = await can("admin", "**")
  if (signal.aborted) return

  const explain = async () => {
    put(result)
    const asked = {
      action: action.value,
      topic: topic.value,
      ...(group.value === "" ? {} : { group: group.value })
    }
    history.replaceState(null, "", href(["policy"], asked))
    try {
      const { allowed, reason, rules } =
        mayTry && text.value.trim() !== ""
          ? await post<Explained>("/policy/explain", { policy: text.value, ...asked })
          : await get<Explained>("/policy/explain", asked, signal)
      put(
        result,
        h(
          "h2",
          {},
          allowed ? badge("allowed", "good") : badge("not allowed", "bad"),
          " ",
          `${asked.action} ${asked.topic}`
        ),
        h("p", {}, reason),
        rules.length === 0
          ? quiet(
              "There are no rules to show. A token gets them by its scopes, such as ",
              h("code", {}, "subscribe:orders.**"),
              ", and by its roles, whose rules are for those who administrate the topic."
            )
          : h(
              "ol",
              { class: "rules" },
              rules.map(({ decides, n, text, why }) =>
                h(
                  "li",
                  { value: n, ...(decides ? { class: allowed ? "good" : "bad" } : {}) },
                  h("code", {}, text),
                  " ",
                  decides ? h("strong", {}, why) : h("span", { class: "quiet" }, why)
                )
              )
            )
      )
    } catch (error) {
      if (!signal.aborted) put(result, trouble(error))
    }
  }

  add(
    quiet("The first rule that matches decides; where none does, the answer is no."),
    form(
      { class: "bar" },
      explain,
      field("Action", action),
      field("Topic or pattern", topic, "wide"),
      field("In group", group),
      h("button", { class: "primary" }, "Explain"),
      mayTry &&
        h(
          "details",
          { class: "full" },
          h("summary", {}, "Try another policy than this token's"),
          field("Policy, as text: one rule a line", text, "wide")
        )
    ),
    result
  )
  if (topic.value !== "") await explain()
}
