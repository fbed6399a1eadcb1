//! The requests that are measured, for `wrk` and for the check before it.

use mainstay_bench::database::{ROWS, row_id};

/// The origin that the stacks allow; every request carries it, so that CORS has its work to do.
pub(crate) const ORIGIN: &str = "https://app.example.org";

/// A body of about 300 bytes for the echo.
pub(crate) const ORDER: &str = r#"{"email":"first.last@example.org","sku":"SKU-000042","quantity":3,"price":"12.65","note":"Please leave the parcel with the neighbours on the second floor if nobody opens, and ring twice; the bell of the first floor does not work. Thank you!","tags":["gift","fragile","wrap in paper"]}"#;

/// How many different rows the product route asks for, in turn.
const PRODUCTS: u64 = 1_000;

/// One request, or one of a series that differs in the path alone.
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) paths: Vec<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<&'static str>,
    /// The answer must come compressed: a peer without compression is left out.
    pub(crate) compressed: bool,
    /// A stack must refuse the request when it carries no token.
    pub(crate) signed_in: bool,
}

/// The routes in the order of the table; `product` only where there is a database.
pub(crate) fn all(database: bool, token: &str) -> Vec<Route> {
    let mut routes = vec![
        get("small", "/api/small", "gzip, deflate, br"),
        get("big", "/api/big", "identity"),
        Route { compressed: true, ..get("big, gzip", "/api/big", "gzip") },
        echo(),
    ];
    if database {
        let mut route = get("product", "", "gzip, deflate, br");
        // Rows spread over the table, so that the index is walked and not one leaf of it.
        route.paths = (0..PRODUCTS).map(|number| format!("/api/products/{}", row_id(1 + number * 7919 % ROWS))).collect();
        route.headers.push(("authorization", format!("Bearer {token}")));
        route.signed_in = true;
        routes.push(route);
    }
    routes
}

fn get(name: &'static str, path: &str, encodings: &str) -> Route {
    let headers = vec![("accept-encoding", encodings.to_owned()), ("origin", ORIGIN.to_owned())];
    Route { name, method: "GET", paths: vec![path.to_owned()], headers, body: None, compressed: false, signed_in: false }
}

fn echo() -> Route {
    let mut route = Route { method: "POST", body: Some(ORDER), ..get("echo", "/api/echo", "gzip, deflate, br") };
    route.headers.push(("content-type", "application/json".to_owned()));
    route
}

impl Route {
    /// The script that makes `wrk` send this route and print one line that [`crate::load`] reads.
    pub(crate) fn wrk_script(&self) -> String {
        let mut script = format!("wrk.method = \"{}\"\n", self.method);
        for (name, value) in &self.headers {
            script.push_str(&format!("wrk.headers[\"{name}\"] = \"{value}\"\n"));
        }
        if let Some(body) = self.body {
            script.push_str(&format!("wrk.body = [=[{body}]=]\n"));
        }
        if let [_, _, ..] = self.paths.as_slice() {
            let paths: Vec<String> = self.paths.iter().map(|path| format!("\"{path}\"")).collect();
            script.push_str(&format!("local paths = {{{}}}\n", paths.join(",")));
            // Written once before the load begins: the script costs the load generator one table look-up a request.
            script.push_str("local sent, requests = 0, {}\n");
            script.push_str("function init(args)\n  for i, path in ipairs(paths) do requests[i] = wrk.format(nil, path) end\nend\n");
            script.push_str("function request()\n  sent = sent % #requests + 1\n  return requests[sent]\nend\n");
        }
        script.push_str(
            "function done(summary, latency)\n  local e = summary.errors\n  \
             io.write(string.format(\"SAMPLE %d %d %d %d %d\\n\", summary.requests, summary.duration, \
             latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))\nend\n",
        );
        script
    }

    /// The path of the first request.
    pub(crate) fn first_path(&self) -> &str {
        self.paths.first().map_or("/", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_about_three_hundred_bytes() {
        assert!((250..350).contains(&ORDER.len()), "{}", ORDER.len());
    }

    #[test]
    fn a_series_of_paths_is_sent_in_turn_and_a_single_path_without_a_script_per_request() {
        let routes = all(true, "token");
        let script = |name| routes.iter().find(|route| route.name == name).expect("a known route").wrk_script();
        assert!(script("product").contains("function request()"));
        assert!(!script("small").contains("function request()"));
    }
}
