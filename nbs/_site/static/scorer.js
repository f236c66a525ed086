// How a search ranks what it finds: first the headings that have its words side by side, then the pages that have them somewhere.
var Scorer = {
  score: ([, , , , score, , kind]) => (kind === "title" ? 100 + score : score),
  objNameMatch: 11, objPartialMatch: 6, objPrio: {}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
