// The documentation page: Swagger UI over /openapi.json, a sign-in box, light and dark.
// Everything comes from this server; nothing is kept but the choice of colours. The access token lives in the page's
// memory and is gone with it.
"use strict";

// --- colours: the system's, unless the reader chose -----------------------------------------------------------------

const SCHEME_KEY = "mainstay-docs-scheme";
const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");

function chosenScheme() {
  try {
    return localStorage.getItem(SCHEME_KEY);
  } catch {
    return null; // storage is switched off: the system decides
  }
}

function isDark() {
  const chosen = chosenScheme();
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

function paint() {
  document.documentElement.classList.toggle("dark-mode", isDark()); // the name Swagger UI listens to
}

function switchScheme() {
  const next = isDark() ? "light" : "dark";
  try {
    localStorage.setItem(SCHEME_KEY, next);
    paint();
  } catch {
    document.documentElement.classList.toggle("dark-mode");
  }
}

paint();
systemIsDark.addEventListener("change", paint);

// --- the session ----------------------------------------------------------------------------------------------------

const LOGIN_URL = "/api/auth/login";

// What went wrong, in the words of the server's one error form.
function problemOf(status, body) {
  if (body?.message) return body.message;
  return status ? `The server answered ${status}.` : "The server does not answer.";
}

// When a JWT expires, in milliseconds since the epoch; undefined when it does not say.
function expiryOf(token) {
  try {
    const claims = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(atob(claims)).exp * 1000 || undefined;
  } catch {
    return undefined;
  }
}

async function signIn(email, password) {
  let answer;
  try {
    answer = await fetch(LOGIN_URL, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify({ email, password }),
    });
  } catch {
    throw new Error(problemOf(0));
  }
  const body = await answer.json().catch(() => null);
  const token = body?.data?.access_token;
  if (!answer.ok || !token) throw new Error(problemOf(answer.status, body));
  return token;
}

// The names of the document's bearer schemes.
function bearerSchemes(document_) {
  const schemes = Object.entries(document_?.components?.securitySchemes ?? {});
  return schemes.filter(([, scheme]) => scheme.type === "http" && scheme.scheme?.toLowerCase() === "bearer").map(([name]) => name);
}

// The document, with the id of a product that exists as the example where one is shown: the request succeeds as it stands.
// Where one is changed or removed it stays empty: nobody's product is lost to a click.
async function described() {
  const fetched = (url) => fetch(url).then((answer) => (answer.ok ? answer.json() : null));
  const [description, products] = await Promise.all([fetched("/openapi.json"), fetched("/api/products?limit=1").catch(() => null)]);
  const id = products?.data?.[0]?.id;
  const parameter = description?.paths?.["/api/products/{id}"]?.get?.parameters?.find(({ name }) => name === "id");
  if (id && parameter) parameter.example = id;
  return description;
}

// --- the page -------------------------------------------------------------------------------------------------------

async function start() {
  const get = (id) => document.getElementById(id);
  const form = get("sign-in");
  let schemes = [];
  let expiryTimer;
  let ui;

  function say(problem) {
    get("problem").textContent = problem;
    get("problem").hidden = !problem;
  }

  function showSession(account) {
    form.hidden = Boolean(account);
    get("signed-in").hidden = !account;
    get("account").textContent = account ?? "";
  }

  function forget(problem) {
    clearTimeout(expiryTimer);
    ui.authActions.logout(schemes);
    showSession(null);
    say(problem ?? "");
  }

  function remember(account, token) {
    for (const name of schemes) ui.preauthorizeApiKey(name, token);
    const expires = expiryOf(token);
    get("expiry").textContent = expires ? ` until ${new Date(expires).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}` : "";
    // setTimeout counts in 32 bits: a token that lives longer than 24 days outlives the page anyway.
    const left = expires ? expires - Date.now() : 0;
    if (left > 0 && left < 2 ** 31) expiryTimer = setTimeout(() => forget("The access token has expired. Sign in again."), left);
    showSession(account);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { email, password } = form.elements;
    const button = form.querySelector("button");
    button.disabled = true;
    say("");
    try {
      remember(email.value, await signIn(email.value, password.value));
      password.value = "";
    } catch (error) {
      say(error.message);
    } finally {
      button.disabled = false;
    }
  });
  get("sign-out").addEventListener("click", () => forget());
  get("scheme").addEventListener("click", switchScheme);

  // Last, because it waits: without its listener the form would send the password in a query.
  ui = SwaggerUIBundle({
    ...(await described().then((spec) => (spec ? { spec } : { url: "/openapi.json" }), () => ({ url: "/openapi.json" }))),
    dom_id: "#swagger-ui",
    presets: [SwaggerUIBundle.presets.apis],
    deepLinking: true,
    tryItOutEnabled: true,
    persistAuthorization: false,
    displayRequestDuration: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    showExtensions: false,
    validatorUrl: null, // no document leaves this machine to be judged
    queryConfigEnabled: false, // ?url= would make this page show somebody else's document
    onComplete: () => {
      const description = ui.getSystem().specSelectors.specJson().toJS();
      schemes = bearerSchemes(description);
      get("version").textContent = description.info?.version ?? "";
    },
  });
  window.ui = ui;
}

document.addEventListener("DOMContentLoaded", start);
