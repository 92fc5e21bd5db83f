// Makes of the one page that holds the book what paper needs: a title page, contents, headings
// by rank, everything unfolded. `pages` takes anchors to the pages of a first print.
async (about) => {
  await MathJax.startup.promise;
  const made = (tag, name, ...inside) => {
    const node = document.createElement(tag);
    node.className = name;
    node.append(...inside);
    return node;
  };
  const article = document.querySelector("article.bd-article");
  const book = article.querySelector("section");
  const parts = [...book.querySelectorAll(".toctree-wrapper")];
  const words = (node) => node.textContent.replace(/\s+/g, " ").trim();
  const captions = [...document.querySelectorAll("nav.bd-links p.caption")].map(words);

  document.body.classList.add("whole-book");
  // What stands beside the text, though not printed, would leave the first page empty.
  for (let node = article; node !== document.body; node = node.parentNode)
    for (const other of [...node.parentNode.children]) if (other !== node) other.remove();
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const folded of document.querySelectorAll(".toggle-hidden"))
    folded.classList.remove("toggle-hidden");
  for (const image of document.images) {
    image.loading = "eager";
    image.classList.toggle("tall", image.naturalHeight > image.naturalWidth);
  }
  for (const link of document.querySelectorAll("a.headerlink")) link.remove();

  // A page is as high as a chapter's title: its sections stand one rank below.
  for (const part of parts)
    for (const old of part.querySelectorAll("h2, h3, h4, h5, h6")) {
      const head = made(`h${old.tagName[1] - 1}`, old.className, ...old.childNodes);
      old.replaceWith(head);
    }

  const title = words(book.querySelector("h1"));
  const written = { day: "numeric", month: "long", year: "numeric" };
  const today = new Date().toLocaleDateString("en-GB", written);
  let entries = 0;
  const entry = (section, name) => {
    const head = section.querySelector("h1, h2");
    head.id = `contents-${++entries}`; // sections of two chapters may share an id
    const link = Object.assign(made("a", ""), { href: `#${head.id}`, textContent: words(head) });
    link.dataset.page = about.pages?.[head.id] ?? "";
    return made("li", name, link);
  };
  const sections = (page) => [...page.children].filter(
    (child) => child.matches("section") && child.querySelector(":scope > h2"));
  const list = made("ul", "");
  list.append(entry(book, "page"));
  parts.forEach((part, i) => {
    list.append(made("li", "part", captions[i] ?? ""));
    for (const page of part.querySelectorAll(":scope > section")) {
      list.append(entry(page, "page"));
      if (page.previousElementSibling?.id.startsWith("document-chapters/"))
        list.append(...sections(page).map((section) => entry(section, "section")));
    }
  });
  const contents = made("nav", "print-contents", made("p", "print-head", "Contents"), list);
  const front = made("div", "print-title",
    made("p", "print-name", title), made("p", "print-about", about.title),
    made("p", "print-authors", about.authors.map((author) => author.name).join(", ")),
    made("p", "print-version", `Version ${about.version}, printed on ${today}`),
    made("p", "print-source", `Source ${about.source}`));
  article.prepend(front, contents);
  document.title = title;

  // What fits on a page stays whole; what does not may break anywhere.
  for (const whole of document.querySelectorAll("table, figure, .admonition, .sd-card, dl.py"))
    whole.classList.toggle("may-break", whole.getBoundingClientRect().height > 700);
};
