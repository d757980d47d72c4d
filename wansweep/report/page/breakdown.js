// A case's section of report.md as elements: the few forms of Markdown that report/breakdown.py writes, always as text, never as markup.
"use strict";
const breakdown = (() => {
  const element = (name, ...children) => { const made = document.createElement(name); made.append(...children); return made; };
  const plain = (text) => text.replace(/\\([\\|`*[])/g, "$1").replaceAll("&lt;", "<");

  // **bold**, `code`; a backslash takes the meaning from what follows it.
  const inline = (text) => text.split(/(\*\*(?:[^*\\]|\\.)+\*\*|(?<!\\)`(?:[^`\\]|\\.)+`)/).filter(Boolean).map((part) =>
    part.startsWith("**") ? element("strong", plain(part.slice(2, -2)))
      : part.startsWith("`") ? element("code", part.slice(1, -1)) : plain(part));

  const cells = (line) => line.slice(2, -2).split(" | ");
  const table = (lines) => {
    const right = cells(lines[1]).map((mark) => mark.endsWith(":") && !mark.startsWith(":"));
    const row = (line, kind) => element("tr", ...cells(line).map((text, place) => {
      const cell = element(kind, ...inline(text));
      if (right[place]) cell.className = "number";
      return cell;
    }));
    const made = element("table", element("thead", row(lines[0], "th")), element("tbody", ...lines.slice(2).map((line) => row(line, "td"))));
    const box = element("div", made);
    box.className = "inner";
    return box;
  };

  const block = (lines) => {
    if (lines[0].startsWith("### ")) return [element("h4", plain(lines[0].slice(4)))];
    if (lines[0].startsWith("| ")) return [table(lines)];
    const items = lines.filter((line) => line.startsWith("- ")).map((line) => element("li", ...inline(line.slice(2))));
    const rest = lines.filter((line) => !line.startsWith("- ")).map((line) => element("p", ...inline(line)));
    return items.length ? [...rest, element("ul", ...items)] : rest;
  };

  return (one) => {
    const made = element("div");
    made.className = "breakdown";
    if (one.sheet) made.append(Object.assign(element("img"), { src: one.sheet, alt: `Frames of the video of ${one.label}` }));
    for (const part of one.breakdown.split("\n\n")) {
      if (part && part !== "---" && !part.startsWith("## ")) made.append(...block(part.split("\n")));
    }
    return made;
  };
})();
