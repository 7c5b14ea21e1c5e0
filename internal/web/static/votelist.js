// The list of votes. It loads pages with the filter, adds votes that arrive, and shows both.

import { isFiltered, parseFragment, queryOf } from "./address.js";
import { APIError, get } from "./api.js";
import { $ } from "./dom.js";
import { formatCount, formatQuantity } from "./format.js";
import { appendPage, emptyList, findVote, firstPage, neighborsOf, prependArrived } from "./listmodel.js";
import { throttled } from "./timer.js";
import { VoteRows } from "./voterows.js";

const pageSize = 50;
const refreshDelay = 3000; // milliseconds

export class VoteList {
  columns = []; // the columns of /api/summary
  filter = parseFragment("").filter;

  #list = emptyList;
  #request = null; // AbortController of the load in progress, or null
  #moreWanted = false; // whether the reader has asked for more votes during this load
  #missed = 0;     // number of votes that have arrived but are not in the list, which the page shows to the reader
  #total = 0;      // last known number of rows in the table
  #version = 0;    // version of the table in the last event
  #rows = new VoteRows($("votes"));

  get isEmpty() { return this.#list.rows.length === 0; }

  find(key) { return findVote(this.#list, key); }

  neighborsOf(key) { return neighborsOf(this.#list, key); }

  focus(key) { this.#rows.focus(key); }

  // load shows the first page. A quiet load changes nothing until the whole page has arrived.
  async load(quiet = false) {
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    if (!quiet) {
      this.#moreWanted = false;
      $("votes").setAttribute("aria-busy", "true");
    }
    try {
      const found = [];
      let page = { next: null }, scanned = 0;
      // The server ends a search after a fraction of a second, so a search for a rare word takes several requests.
      do {
        page = await this.#getPage(page.next, request);
        found.push(...page.rows);
        scanned += page.scanned;
        if (!quiet && found.length < pageSize && page.next !== null) {
          this.#show(firstPage([...found], page.next));
          $("count").textContent = `${formatCount(found.length)} found, ${formatCount(scanned)} of ${formatCount(page.total)} searched …`;
        }
      } while (found.length < pageSize && page.next !== null);
      if (page.version < this.#version) this.#refresh(); // an event has arrived that is newer than the answer
      this.#missed = 0;
      this.#show(firstPage(found, page.next));
      this.#showCount(page.total);
    } catch (error) {
      showLoadError(error);
    } finally {
      if (this.#request === request) {
        this.#request = null;
        $("votes").removeAttribute("aria-busy");
        if (this.#moreWanted) {
          this.#moreWanted = false;
          this.loadMore();
        }
      }
    }
  }

  async loadMore() {
    if (this.#list.next === null) return;
    if (this.#request) { // the first page is being loaded
      this.#moreWanted = true;
      return;
    }
    const request = (this.#request = new AbortController());
    $("more").disabled = true;
    try {
      const before = this.#list.rows.length;
      let page;
      do {
        page = await this.#getPage(this.#list.next, request);
        this.#show(appendPage(this.#list, page));
      } while (this.#list.rows.length < before + pageSize && this.#list.next !== null);
      this.#showCount(page.total);
      this.#rows.focusAt(before);
    } catch (error) {
      showLoadError(error);
    } finally {
      if (this.#request === request) this.#request = null;
      $("more").disabled = false;
    }
  }

  // addArrived adds the votes of an event from the stream: {rows, total, version, more}.
  addArrived(event) {
    const added = Math.max(event.rows.length, event.total - this.#total); // also counts new votes that are older than others
    this.#total = event.total;
    this.#version = event.version;
    const filtered = isFiltered(this.filter);
    // Only the server knows whether the new votes match a filter. A list that the reader has extended does not change if the
    // change would leave a gap: between the new and the old votes, or where an older vote was added.
    const gap = this.#list.extended && (this.#missed > 0 || event.more || added > event.rows.length);
    if (filtered || gap) {
      if (added > 0) {
        this.#missed += added;
        const count = formatCount(this.#missed) + (event.more ? "+" : "");
        $("new-votes").textContent = `${count} new ${this.#missed === 1 ? "vote" : "votes"}. ${filtered ? "Search again" : "Show the newest"}`;
        $("new-votes").hidden = false;
      }
      return;
    }
    this.#refresh();
    if (this.#request && this.isEmpty) return; // the page that is being loaded contains these votes
    if (event.rows.length > 0) {
      this.#show(prependArrived(this.#list, event.rows, event.more), new Set(event.rows.map((vote) => vote.key)));
      $("live").textContent = formatQuantity(event.rows.length, "new vote");
    }
    this.#showCount(event.total);
  }

  // #refresh loads the first page again, because votes may have been edited or deleted. It does not change a list that the
  // reader has extended.
  #refresh = throttled(() => {
    if (this.#request) this.#refresh();
    else if (!this.#list.extended) this.load(true);
  }, refreshDelay);

  #getPage(after, request) {
    const extra = { limit: pageSize };
    if (after !== null) extra.after = after;
    return get("api/votes" + queryOf(this.filter, extra), request.signal);
  }

  #show(list, fresh) {
    this.#list = list;
    this.#rows.show(list.rows, this.columns, this.filter, fresh);
    $("more").hidden = list.next === null || this.isEmpty;
    $("empty").hidden = !this.isEmpty;
    $("empty").textContent = isFiltered(this.filter) ? "No votes match the filter." : "No votes yet. New votes appear here by themselves.";
    $("new-votes").hidden = this.#missed === 0;
  }

  #showCount(total) {
    this.#total = total;
    const shown = formatCount(this.#list.rows.length) + (this.#list.next === null ? "" : "+");
    $("count").textContent = isFiltered(this.filter) ? `${shown} of ${formatQuantity(total, "vote")}` : formatQuantity(total, "vote");
  }
}

// showLoadError shows the error that the server has answered. If the server has not answered at all, the banner shows that.
export function showLoadError(error) {
  if (!(error instanceof APIError)) return;
  $("empty").textContent = error.message;
  $("empty").hidden = false;
}
