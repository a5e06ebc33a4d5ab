// In a search, a dash before a word would leave out what has the word: options are searched for as they are written.
document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.matches("[data-md-component=search-query]"))
    field.value = field.value.replace(/(^|\s)-+(?=\w)/g, "$1");
}, true);
