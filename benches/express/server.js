// The Express peer: one team's production stack, in the order in which they ran it, around the routes of the benchmark.
// It promises to do everything the other peers do and nothing that would slow it on purpose: where the story leaves a
// choice open, the faster one is taken (Express 4, a tenth faster here than Express 5; pino rather than winston; a
// hand-written check rather than a schema library).
'use strict';

const express = require('express');
const helmet = require('helmet');
const cors = require('cors');
const compression = require('compression');
const pino = require('pino');
const pinoHttp = require('pino-http');
const { rateLimit } = require('express-rate-limit');
const { randomUUID } = require('node:crypto');
const jwt = require('jsonwebtoken');
const { Pool } = require('pg');

const HOST = '127.0.0.1';
const PORT = Number(process.env.PORT || 3000);
const BODY_LIMIT = '1mb';
const REQUEST_TIMEOUT_MS = 30_000;
const RATE_LIMIT_WINDOW_MS = 15 * 60 * 1000;
// The story's limit is 100 in a window; the benchmark sets it out of reach, so that every request is counted and none refused.
const RATE_LIMIT_MAX = Number(process.env.RATE_LIMIT_MAX || 100);
const ALLOWED_ORIGINS = (process.env.ALLOWED_ORIGINS || '').split(',').filter(Boolean);
const JWT_SECRET = process.env.JWT_SECRET || '';
const JWT_CHECKS = { algorithms: ['HS256'], issuer: 'mainstay', audience: 'mainstay' };

const pool = process.env.DATABASE_URL
  ? new Pool({
      connectionString: process.env.DATABASE_URL,
      max: 20,
      min: 5,
      idleTimeoutMillis: 30_000,
      connectionTimeoutMillis: 5_000,
      statement_timeout: 30_000,
    })
  : null;
if (pool) pool.on('error', () => {});

class ApiError extends Error {
  constructor(status, message, errors) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

const app = express();

// ---- The stack, outermost first ------------------------------------------------------------------------------------
app.use(
  pinoHttp({
    logger: pino({ level: 'info' }, pino.destination(1)),
    genReqId(req, res) {
      const id = req.headers['x-request-id'] || randomUUID();
      res.setHeader('x-request-id', id);
      return id;
    },
    // One short line a request, as an access log has it: the library's default writes every header of both sides.
    serializers: {
      req: (req) => ({ id: req.id, method: req.method, url: req.url, remoteAddress: req.remoteAddress }),
      res: (res) => ({ statusCode: res.statusCode }),
    },
  }),
);
app.use(
  helmet({
    contentSecurityPolicy: {
      directives: { defaultSrc: ["'self'"], styleSrc: ["'self'", "'unsafe-inline'"] },
    },
    hsts: { maxAge: 31_536_000, includeSubDomains: true, preload: true },
  }),
);
app.use(cors({ origin: ALLOWED_ORIGINS, credentials: true }));
app.use(
  compression({
    threshold: 1024,
    filter: (req, res) => (req.headers['x-no-compression'] ? false : compression.filter(req, res)),
  }),
);
app.use(express.json({ limit: BODY_LIMIT }));
app.use(express.urlencoded({ extended: true, limit: BODY_LIMIT }));
app.use(
  rateLimit({
    windowMs: RATE_LIMIT_WINDOW_MS,
    max: RATE_LIMIT_MAX,
    standardHeaders: true,
    legacyHeaders: false,
    message: { status: 'error', message: 'Too many requests' },
  }),
);
app.use((req, res, next) => {
  res.setTimeout(REQUEST_TIMEOUT_MS, () => next(new ApiError(408, 'Request timeout')));
  next();
});

// ---- The routes, the same as in ../src/routes.rs -------------------------------------------------------------------
app.get('/api/small', (req, res) => {
  res.json({
    status: 'success',
    data: { id: 42, sku: 'SKU-000042', name: 'Wireless headphones', price: '12.65', currency: 'EUR', stock: 7 },
  });
});

app.get('/api/big', (req, res) => {
  const data = [];
  for (let i = 0; i < 50; i += 1) data.push(bigItem(i));
  res.json({ status: 'success', data });
});

// Words mixed by a fixed rule, so that the list compresses about as a catalogue does and not as one line repeated.
const WORDS = (
  'over ear headphones battery folding frame microphone cable quiet travel office charge hours black silver cushion ' +
  'leather driver bass clear voice noise cancel wireless range metre pair button case weight gram warranty year spare ' +
  'part manual adapter plug sound stage studio monitor closed open light strong soft'
).split(' ');

function bigItem(i) {
  const words = [];
  for (let k = 0; k < 26; k += 1) words.push(WORDS[(i * 31 + k * k * 7 + i * k) % WORDS.length]);
  return {
    id: i,
    sku: `SKU-${String(i).padStart(6, '0')}`,
    name: `${WORDS[(i * 11) % WORDS.length]} ${WORDS[(i * 17 + 5) % WORDS.length]} ${i}`,
    manufacturer: `Manufacturer ${i % 7}`,
    category: ['Audio', 'Headphones', `Line ${i % 5}`],
    description: words.join(' '),
    price: `${10 + i}.${10 + (i % 90)}`,
    currency: 'EUR',
    stock: (i * 37) % 100,
    available: i % 3 !== 0,
  };
}

app.post('/api/echo', (req, res, next) => {
  const order = req.body;
  const errors = checkOrder(order);
  if (errors.length > 0) return next(new ApiError(400, 'Validation failed', errors));
  const { email, sku, quantity, price, note, tags } = order;
  return res.json({ status: 'success', data: { email, sku, quantity, price, note, tags } });
});

function checkOrder(order) {
  const errors = [];
  const text = (value, min, max) => typeof value === 'string' && value.length >= min && value.length <= max;
  if (order === null || typeof order !== 'object') return ['body'];
  if (!text(order.email, 3, 254) || order.email.indexOf('@') < 1) errors.push('email');
  if (!text(order.sku, 1, 64)) errors.push('sku');
  if (!Number.isInteger(order.quantity) || order.quantity < 1 || order.quantity > 1000) errors.push('quantity');
  if (!text(order.price, 1, 20) || !/^[0-9.]+$/.test(order.price)) errors.push('price');
  if (!text(order.note, 0, 500)) errors.push('note');
  if (!Array.isArray(order.tags) || order.tags.length > 10 || !order.tags.every((tag) => text(tag, 1, 32))) errors.push('tags');
  return errors;
}

function signedIn(req, res, next) {
  const header = req.headers.authorization || '';
  if (!header.startsWith('Bearer ')) return next(new ApiError(401, 'Authentication required'));
  try {
    req.account = jwt.verify(header.slice(7), JWT_SECRET, JWT_CHECKS);
    return next();
  } catch {
    return next(new ApiError(401, 'Invalid token'));
  }
}

const UUID_FORM = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const PRODUCT_SQL =
  'SELECT id, sku, name, manufacturer, description, price::text AS price, currency, version ' +
  'FROM mainstay_bench.products WHERE id = $1';

if (pool) {
  app.get('/api/products/:id', signedIn, async (req, res, next) => {
    try {
      if (!UUID_FORM.test(req.params.id)) throw new ApiError(400, 'Invalid product ID format');
      const found = await pool.query(PRODUCT_SQL, [req.params.id]);
      if (found.rows.length === 0) throw new ApiError(404, 'Product not found');
      res.json({ status: 'success', data: found.rows[0] });
    } catch (err) {
      next(err);
    }
  });
}

// ---- What nobody answered, and what went wrong ---------------------------------------------------------------------
app.use((req, res, next) => next(new ApiError(404, `Route ${req.method} ${req.originalUrl} not found`)));
app.use((err, req, res, next) => {
  if (res.headersSent) return next(err);
  // A body that does not parse carries its own status from the parser.
  const status = err.status || 500;
  const message = err instanceof ApiError ? err.message : 'Internal server error';
  return res.status(status).json({ status: 'error', message, errors: err.errors, timestamp: new Date().toISOString() });
});

const server = app.listen(PORT, HOST);
process.on('SIGTERM', () => server.close(() => process.exit(0)));
