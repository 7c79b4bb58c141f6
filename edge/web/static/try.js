// The visitor's camera: one picture at a time goes out, and the next when its answer is there.
(() => {
  const WIDTH = 640, QUALITY = 0.8, RETRY_MAX_MS = 5000, ANSWER_MAX_MS = 5000;
  const CANNOT_READ = 4500, IDLE = 4408;  // edge/web/tryit.py
  const at = (id) => document.getElementById("try-" + id);
  let stream = null, video = null, socket = null, retryMs = 500, faces = [], times = [], trips = [];

  const say = (text) => { if (at("status").textContent !== text) at("status").textContent = text; };

  async function start() {
    if (!navigator.mediaDevices) {
      say("This browser gives no camera to this page: it must be opened as https:// or at localhost.");
      return;
    }
    say("Asking for the camera…");
    at("start").disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: WIDTH, height: 480 } });
    } catch (error) {
      const why = {
        NotAllowedError: "The camera was refused. Allow it for this page in the browser's address bar, then start again.",
        NotFoundError: "No camera was found. Plug one in, then start again.",
        NotReadableError: "The camera is used by another program. Close that, then start again.",
      };
      say(why[error.name] || "The camera cannot be used: " + error.message);
      return;
    } finally {
      at("start").disabled = false;
    }
    stream.getVideoTracks()[0].onended = () => stop("The camera was taken away. Start again when it is back.");
    video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    await video.play();
    at("start").hidden = true;
    at("stop").hidden = at("shown").hidden = false;
    sessionStorage.setItem("emotiond-try", "on");
    connect();
    draw();
  }

  function stop(why = "The camera is off.") {
    sessionStorage.removeItem("emotiond-try");
    stream?.getTracks().forEach((track) => track.stop());
    const left = socket;
    stream = video = socket = null;
    left?.close();
    clear();
    at("start").hidden = false;
    at("stop").hidden = at("shown").hidden = true;
    say(why);
    at("canvas").getContext("2d").clearRect(0, 0, at("canvas").width, at("canvas").height);
  }

  function clear() {
    faces = times = trips = [];
    at("rate").textContent = "";
    at("faces").replaceChildren();
  }

  function connect() {
    if (!stream || socket) return;
    const address = new URL("try/frames", location);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const mine = socket = new WebSocket(address);
    let takenAt = 0, patience;
    const lose = (code) => {
      clearTimeout(patience);
      if (socket !== mine) return;
      socket = null;
      if (code === CANNOT_READ) {
        stop("This server cannot read faces now; its log says why. Start again when that is mended.");
        return;
      }
      clear();
      say(code === 1013 ? "The server is busy: others are trying it now. Waiting for a place…"
        : code === IDLE ? "Paused while this page is in the background."
        : "The connection to the server is lost. Trying again…");
      if (document.hidden) document.addEventListener("visibilitychange", connect, { once: true });
      else setTimeout(connect, retryMs);
      retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
      mine.close();
    };
    // A network that swallows everything closes nothing. Of a page in the background no picture is due, and no answer.
    const wait = () => { clearTimeout(patience); patience = setTimeout(lose, ANSWER_MAX_MS); };
    const shot = document.createElement("canvas");
    const send = () => {
      if (!video || mine.readyState !== WebSocket.OPEN) return;
      wait();
      const now = performance.now();
      shot.width = WIDTH;
      shot.height = Math.round((WIDTH * video.videoHeight) / video.videoWidth) || 480;
      shot.getContext("2d").drawImage(video, 0, 0, shot.width, shot.height);
      shot.toBlob((blob) => {
        if (!blob || mine.readyState !== WebSocket.OPEN) return;
        takenAt = now;
        mine.send(blob);
      }, "image/jpeg", QUALITY);
    };
    wait();
    mine.onopen = () => { retryMs = 500; say("Reading faces."); send(); };
    mine.onmessage = (message) => {
      if (socket !== mine) return;
      clearTimeout(patience);
      const now = performance.now();
      faces = JSON.parse(message.data).faces;
      trips = [...trips.slice(-199), now - takenAt];
      times = [...times.slice(-29), now];
      show();
      requestAnimationFrame(send);
    };
    mine.onclose = (event) => lose(event.code);
  }

  function show() {
    const box = at("faces"), names = box.dataset.emotions.split(" ");
    if (times.length > 1) {
      const fps = ((times.length - 1) * 1000) / (times[times.length - 1] - times[0]);
      const sorted = [...trips].sort((a, b) => a - b), p95 = sorted[Math.floor(sorted.length * 0.95)];
      Object.assign(at("rate").dataset, { fps: fps.toFixed(1), p95: p95.toFixed(1) });
      at("rate").textContent = fps.toFixed(0) + " frames/s, round trip " + p95.toFixed(0) + " ms (p95)";
    }
    while (box.children.length > faces.length) box.lastChild.remove();
    faces.forEach((face, index) => {
      let part = box.children[index];
      if (!part) {
        part = document.createElement("div");
        part.className = "face";
        const table = part.appendChild(document.createElement("table"));
        table.createCaption();
        names.forEach((name) => {
          const row = table.insertRow(), head = document.createElement("th");
          const swatch = document.createElement("span"), meter = document.createElement("meter");
          head.scope = "row";
          swatch.className = "swatch";
          swatch.style.background = "var(--" + name + ")";
          head.append(swatch, name);
          row.append(head);
          meter.style.setProperty("--fill", "var(--" + name + ")");
          meter.setAttribute("aria-label", name);
          row.insertCell().append(meter);
          row.insertCell();
        });
        box.append(part);
      }
      const table = part.firstChild;
      table.caption.textContent = "face " + face.face + ": " + (face.emotion || "uncertain");
      face.scores.forEach((score, row) => {
        const meter = table.rows[row].cells[1].firstChild;
        meter.value = score;
        meter.style.setProperty("--share", 100 * score + "%");
        table.rows[row].cells[2].textContent = Math.round(score * 100) + " %";
      });
    });
  }

  function draw() {
    if (!video) return;
    const canvas = at("canvas"), context = canvas.getContext("2d");
    const height = Math.round((WIDTH * video.videoHeight) / video.videoWidth) || 480;
    if (canvas.height !== height) canvas.height = height;
    context.drawImage(video, 0, 0, WIDTH, height);
    const names = at("faces").dataset.emotions.split(" "), colours = at("faces").dataset.colours.split(" ");
    // As large on a phone, where the canvas is shrunk.
    const scale = Math.max(1, WIDTH / (canvas.clientWidth || WIDTH)), line = 24 * scale, pad = 6 * scale;
    context.lineWidth = 3 * scale;
    context.font = "600 " + 16 * scale + "px sans-serif";
    faces.forEach((face) => {
      const [x, y, w, h] = face.box, place = names.indexOf(face.emotion);
      const colour = colours[place < 0 ? colours.length - 1 : place];
      const text = face.face + " " + (face.emotion ? face.emotion + " " + Math.round(face.confidence * 100) + " %" : "uncertain");
      context.strokeStyle = context.fillStyle = colour;
      context.strokeRect(x, y, w, h);
      const top = Math.max(y, line), left = x - context.lineWidth / 2;
      context.fillRect(left, top - line, context.measureText(text).width + 2 * pad, line);
      context.fillStyle = "#202428";
      context.fillText(text, left + pad, top - 7 * scale);
    });
    requestAnimationFrame(draw);
  }

  // A server that was started anew lets the page load anew; who was trying it goes on trying it.
  const goOn = () => {
    if (sessionStorage.getItem("emotiond-try") !== "on") return;
    if (at("start")) start();
    else setTimeout(goOn, 100);
  };
  goOn();

  document.addEventListener("click", (event) => {
    if (event.target.id === "try-start") start();
    if (event.target.id === "try-stop") stop();
  });
})();
