// All data from hives is inserted as text, never as HTML.

const $ = (id) => document.getElementById(id);

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// cell returns a table cell. Narrow screens show its column name in front of its value.
function cell(name) {
  const td = make("td");
  td.dataset.name = name;
  return td;
}

// updateChildren makes the children of parent match items, in their order. It reuses
// the elements with the same key, so that focus and scroll positions are preserved.
function updateChildren(parent, items, keyOf, create, fill) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = old.get(key);
    old.delete(key);
    if (!node) {
      node = create(item);
      node.dataset.key = key;
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
    fill(node, item);
  }
  for (const node of old.values()) node.remove();
}

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

function bytes(n) {
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i > 0 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}

function duration(seconds) {
  if (!(seconds >= 0)) return "";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return Math.floor(seconds / size) + " " + unit;
  }
  return Math.floor(seconds) + " s";
}

const known = (time) => time && !time.startsWith("0001");
const since = (time, now) => (known(time) ? (now - Date.parse(time)) / 1000 : NaN);

const links = {
  online: ["● online", "good"], stale: ["◐ stale", "warn"], offline: ["○ offline", "bad"], connecting: ["… connecting", "warn"],
};
const states = {
  ready: ["● ready", "good"], loading: ["◐ loading", "warn"], starting: ["◐ starting", "warn"], draining: ["◐ draining", "warn"],
  failed: ["✕ failed", "bad"], stopped: ["○ stopped", ""],
};

function setState(node, [label, className]) {
  text(node, label);
  node.className = className;
}

function drawHives(s, now) {
  updateChildren($("hives"), s.hives, (h) => h.alias, (h) => {
    const card = make("article", "card", make("h3", "", make("span"), make("span")), make("p"), make("p", "bad"), make("div"));
    card.firstChild.firstChild.textContent = h.alias;
    return card;
  }, (card, h) => {
    const [title, about, problem, devices] = card.children;
    setState(title.lastChild, links[h.link] ?? [h.link, ""]);
    const snap = h.snapshot, m = snap?.machine;
    const parts = [h.hostname];
    if (m?.os) parts.push(m.os + "/" + m.arch);
    if (snap) parts.push("rbee " + snap.version);
    if (known(h.seen_at) && h.link !== "online") parts.push("last seen " + duration(since(h.seen_at, now)) + " ago");
    text(about, parts.join(", "));
    text(problem, h.problem ?? "");
    problem.hidden = !h.problem;
    const bars = (m?.devices ?? []).map((d) => ({
      key: d.vendor + d.index + (d.uuid ?? ""), name: (d.index >= 0 ? d.index + " " : "") + (d.name || d.vendor), used: d.memory_used, total: d.memory_total, error: d.error,
      more: [d.utilization != null && Math.round(d.utilization) + " %", d.temperature != null && Math.round(d.temperature) + " °C", d.power != null && Math.round(d.power) + " W"],
    }));
    if (m?.memory_total) bars.push({ key: "ram", name: "RAM", used: m.memory_total - (m.memory_available ?? 0), total: m.memory_total, more: [m.cpu?.threads && m.cpu.threads + " threads"] });
    if (m?.disk_total) bars.push({ key: "disk", name: "disk", used: m.disk_total - (m.disk_free ?? 0), total: m.disk_total, more: [] });
    updateChildren(devices, bars, (b) => b.key, () => make("div", "device", make("div", "", make("span"), make("span")), make("progress"), make("span", "bad")), (node, b) => {
      const [line, bar, error] = node.children;
      text(line.firstChild, b.name);
      const size = b.total ? (b.used == null ? "" : bytes(b.used) + " of ") + bytes(b.total) : "";
      text(line.lastChild, [...b.more, size].filter(Boolean).join(" · "));
      bar.hidden = !b.total || b.used == null;
      bar.max = b.total || 1;
      bar.value = b.used ?? 0;
      bar.setAttribute("aria-label", b.name + ": " + size);
      text(error, b.error ?? "");
    });
  });
}

function drawWorkers(s, now) {
  const all = s.hives.flatMap((h) => (h.snapshot?.workers ?? []).map((w) => ({ ...w, hive: h.alias })));
  $("noworkers").hidden = all.length > 0;
  $("workers").closest(".wide").hidden = all.length === 0;
  updateChildren($("workers"), all, (w) => w.hive + "/" + w.id, (w) => {
    const row = make("tr", "", ...["Model", "Engine", "Hive", "State", "Devices", "Requests", "Uptime", ""].map(cell));
    row.children[3].append(make("span"), make("span", "note"));
    row.children[5].className = row.children[6].className = "n";
    const button = make("button", "", "Logs");
    button.type = "button";
    button.setAttribute("aria-label", "Logs of " + w.id + " on " + w.hive);
    button.addEventListener("click", () => openLogs(w.hive, w.id));
    row.children[7].append(button);
    return row;
  }, (row, w) => {
    const c = row.children;
    text(c[0], w.model);
    text(c[1], [w.worker, w.version].filter(Boolean).join(" "));
    text(c[2], w.hive);
    setState(c[3].firstChild, states[w.state] ?? [w.state, ""]);
    text(c[3].lastChild, [w.problem, ...(w.state === "failed" ? (w.log_tail ?? []).slice(-3) : [])].filter(Boolean).join("\n"));
    text(c[4], (w.devices ?? []).map((d) => (d.vendor ?? "") + " " + d.index).join(", ") || "CPU");
    text(c[5], String(w.requests ?? 0));
    text(c[6], w.state === "ready" ? duration(since(w.ready_at, now)) : "");
  });
}

function drawModels(s) {
  const models = new Map(), loaded = new Set();
  for (const h of s.hives) {
    for (const w of h.snapshot?.workers ?? []) if (w.state === "ready") loaded.add(w.model_id || w.model);
    for (const m of h.snapshot?.models ?? []) {
      const model = models.get(m.id) ?? { id: m.id, repo: m.repo, hives: [], bytes: 0, complete: false };
      model.hives.push(h.alias);
      model.bytes = Math.max(model.bytes, m.bytes ?? 0);
      model.complete ||= m.complete;
      models.set(m.id, model);
    }
  }
  const list = [...models.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  $("nomodels").hidden = list.length > 0;
  $("models").closest(".wide").hidden = list.length === 0;
  updateChildren($("models"), list, (m) => m.id, () => {
    const row = make("tr", "", ...["Model", "Hives", "Size", "State"].map(cell));
    row.children[2].className = "n";
    return row;
  }, (row, m) => {
    const c = row.children;
    text(c[0], m.id);
    text(c[1], m.hives.join(", "));
    text(c[2], bytes(m.bytes));
    text(c[3], !m.complete ? "◐ incomplete" : loaded.has(m.id) ? "● loaded" : "on disk");
  });
}

const issueText = (name) => name.replaceAll("_", " ");

function drawDrift(s, now) {
  const list = s.drift ?? [];
  text($("insync"), !known(s.drift_at) ? "Not checked yet." : (list.length ? "" : "All components match the config. ") + "Checked " + duration(since(s.drift_at, now)) + " ago.");
  updateChildren($("drift"), list.map((d, i) => ({ ...d, key: i + d.hive + d.issue + (d.worker ?? "") })), (d) => d.key, () => make("li"), (node, d) => {
    text(node, d.hive + ": " + (d.details || issueText(d.issue) + (d.worker ? " " + d.worker : "")));
  });
}

const svg = "http://www.w3.org/2000/svg";

function plot(node, series, label) {
  const highest = Math.max(...series.flatMap((s) => s.values), 1e-9);
  series.forEach((s, i) => {
    let line = node.children[i];
    if (!line) {
      line = document.createElementNS(svg, "polyline");
      if (s.className) line.setAttribute("class", s.className);
      node.append(line);
    }
    const step = 300 / Math.max(s.values.length - 1, 1);
    line.setAttribute("points", s.values.map((v, x) => (x * step).toFixed(1) + "," + (58 - (56 * v) / highest).toFixed(1)).join(" "));
  });
  node.setAttribute("aria-label", label);
}

function drawTraffic(t) {
  const points = [...(t.points ?? [])];
  if (points.length > 1) points.pop(); // the last interval is incomplete
  const rate = points.map((p) => p.requests / t.every_seconds), errors = points.map((p) => p.errors / t.every_seconds);
  const first = points.map((p) => p.first_token_seconds);
  const last = (values) => values[values.length - 1] ?? 0, highest = (values) => Math.max(0, ...values);
  text($("rate"), last(rate).toFixed(1) + (highest(rate) > 0 ? ", max " + highest(rate).toFixed(1) : "") + (highest(errors) > 0 ? ", errors " + last(errors).toFixed(1) : ""));
  const measured = first.filter((v) => v > 0), ms = (v) => (v * 1000).toFixed(0) + " ms";
  text($("first"), measured.length ? ms(last(measured)) + ", max " + ms(highest(measured)) : "");
  plot($("requests"), [{ values: rate }, { values: highest(errors) > 0 ? errors : [], className: "errors" }], "Requests per second, now " + $("rate").textContent);
  plot($("latency"), [{ values: first }], "Median time to first byte, latest " + ($("first").textContent || "none"));
}

function draw(s) {
  const now = Date.parse(s.time);
  const count = (link) => s.hives.filter((h) => h.link === link).length;
  const workers = s.hives.flatMap((h) => h.snapshot?.workers ?? []);
  const devices = s.hives.reduce((n, h) => n + (h.snapshot?.machine?.devices?.length ?? 0), 0);
  const parts = [count("online") + " of " + s.hives.length + " hives online"];
  for (const link of ["stale", "offline"]) if (count(link)) parts.push(count(link) + " " + link);
  const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
  parts.push(plural(devices, "device"), plural(workers.filter((w) => w.state === "ready").length, "worker") + " ready", plural(s.traffic.in_flight, "request") + " in flight");
  if (s.traffic.waiting) parts.push(s.traffic.waiting + " waiting");
  text($("summary"), parts.join(", "));
  text($("problem"), s.config_problem ? "Cannot read the config: " + s.config_problem : "");
  $("problem").hidden = !s.config_problem;
  drawTraffic(s.traffic);
  drawHives(s, now);
  drawWorkers(s, now);
  drawModels(s);
  drawDrift(s, now);
  $("fleet").hidden = false;
}

// readEvents calls onData with the data of each server-sent event until the stream ends.
async function readEvents(response, onData) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const data = rest.slice(0, end).split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trimStart());
      rest = rest.slice(end + 2);
      if (data.length) onData(data.join("\n"));
    }
  }
}

let lastEventAt = 0;

async function followFleet() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 10000)) {
    try {
      const response = await fetch("/v1/fleet", { headers: { Accept: "text/event-stream" } });
      if (response.status === 401 || response.status === 403) {
        await login();
        pause = 250;
        continue;
      }
      if (!response.ok) throw new Error("the queen returned status " + response.status);
      await readEvents(response, (data) => {
        lastEventAt = Date.now();
        pause = 500;
        text($("connection"), "live");
        draw(JSON.parse(data));
      });
    } catch (error) {
      console.info("connection lost", error);
    }
    lastEventAt = 0;
    text($("connection"), "reconnecting …");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

setInterval(() => {
  const age = (Date.now() - lastEventAt) / 1000;
  if (lastEventAt && age > 8) text($("connection"), "last update " + duration(age) + " ago");
}, 1000);

function login() {
  $("fleet").hidden = true;
  $("login").hidden = false;
  $("key").focus();
  return new Promise((resolve) => {
    $("login").onsubmit = async (event) => {
      event.preventDefault();
      const response = await fetch("/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: $("key").value }) });
      $("key").value = "";
      if (!response.ok) {
        text($("loginerror"), "Invalid key: want an API key with the scope admin.");
        $("key").focus();
        return;
      }
      text($("loginerror"), "");
      $("login").hidden = true;
      resolve();
    };
  });
}

const maxLogLines = 2000;

async function openLogs(hive, id) {
  const stop = new AbortController();
  let job = "";
  text($("logtitle"), id + " on " + hive);
  text($("log"), "");
  // The job runs until it is canceled. keepalive lets the request finish after the page is closed.
  const close = () => {
    stop.abort();
    if (job) fetch("/v1/jobs/" + encodeURIComponent(job), { method: "DELETE", keepalive: true }).catch((error) => console.info("cannot cancel the job", error));
    job = "";
  };
  $("close").onclick = () => $("logs").close();
  $("logs").onclose = close;
  window.onpagehide = close;
  $("logs").showModal();
  const append = (added) => {
    const log = $("log"), atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    const lines = (log.textContent + added).split("\n");
    log.textContent = lines.slice(-maxLogLines).join("\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  try {
    const operation = { operation: "worker_process_logs", hive_id: hive, id, lines: 200, follow: true };
    const created = await fetch("/v1/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(operation), signal: stop.signal });
    const body = await created.json();
    if (!created.ok) throw new Error(body.error?.message ?? "the queen returned status " + created.status);
    job = body.job_id;
    if (stop.signal.aborted) return close();
    await readEvents(await fetch("/v1/jobs/" + encodeURIComponent(job) + "/stream", { signal: stop.signal }), (data) => {
      if (data.startsWith("[ERROR]")) return append("\n" + data.slice(8));
      if (data.startsWith("[")) return;
      const event = JSON.parse(data);
      if (event.type === "log") append(event.text);
    });
    job = "";
  } catch (error) {
    if (!stop.signal.aborted) append("\n" + error.message);
  }
}

followFleet();
