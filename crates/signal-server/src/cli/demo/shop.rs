//! The made-up shop of the demo: its orders, what was paid, and the totals of the day.
//!
//! It owns what the Sale and Payment services know, so that a page can load what it did not hear. Pure:
//! it publishes nothing. It keeps the newest [`ORDERS_KEPT`] orders.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Branches of the shop, numbered from 1.
pub(super) const BRANCHES: u64 = 3;

/// Orders that a snapshot may have.
const ORDERS_KEPT: usize = 60;

/// Orders that were there before anyone looked, so that no page is empty.
const EARLIER_ORDERS: u64 = 9;

/// Amounts from which the Payment service asks an admin to look, in cents.
const FLAGGED_CENTS: u64 = 4000;

const FIRST_ORDER: u64 = 1000;
const FIRST_PAYMENT: u64 = 5000;

const MENU: [(&str, &str, u64); 6] = [
    ("flat-white", "Flat white", 380),
    ("espresso", "Espresso", 260),
    ("croissant", "Butter croissant", 320),
    ("granola", "Granola bowl", 740),
    ("cheesecake", "Baked cheesecake", 560),
    ("iced-tea", "Peach iced tea", 420),
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shop {
    orders: VecDeque<Order>,
    next: u64,
    totals: Totals,
}

#[derive(Debug)]
struct Order {
    number: u64,
    branch: u64,
    cents: u64,
    lines: Vec<Value>,
    payment: Option<Payment>,
}

#[derive(Clone, Debug)]
pub(super) struct Payment {
    number: u64,
    branch: u64,
    cents: u64,
}

/// Of the day: they go on when an order is forgotten.
#[derive(Debug, Default)]
struct Totals {
    orders: u64,
    payments: u64,
    flagged: u64,
    cents: BTreeMap<u64, u64>,
}

// === impl Shop ===

impl Shop {
    /// A shop that has been open for a while.
    pub(super) fn open() -> Self {
        let mut shop = Self::default();
        for number in 0..EARLIER_ORDERS {
            let (order, _) = shop.order(1 + number % BRANCHES);
            shop.pay(order);
        }
        shop
    }

    /// Takes an order; returns its number and what is published of it.
    pub(super) fn order(&mut self, branch: u64) -> (u64, Value) {
        let number = self.next;
        self.next += 1;
        let (lines, cents) = basket(number);
        let order = Order { number, branch, cents, lines, payment: None };
        let published = order.published();
        self.totals.orders += 1;
        self.orders.push_back(order);
        if self.orders.len() > ORDERS_KEPT {
            self.orders.pop_front();
        }
        (number, published)
    }

    /// Captures an order's payment, if the order is still known and not paid.
    pub(super) fn pay(&mut self, number: u64) -> Option<Payment> {
        let order = self.orders.iter_mut().find(|order| order.number == number)?;
        if order.payment.is_some() {
            return None;
        }
        let payment = Payment { number, branch: order.branch, cents: order.cents };
        self.totals.payments += 1;
        self.totals.flagged += u64::from(payment.is_flagged());
        *self.totals.cents.entry(order.branch).or_default() += order.cents;
        order.payment = Some(payment.clone());
        Some(payment)
    }

    /// What a page loads: the newest orders, oldest first, of one branch or of all; and the totals.
    pub(super) fn snapshot(&self, branch: Option<u64>) -> Value {
        let orders =
            self.orders.iter().filter(|order| branch.is_none_or(|one| order.branch == one));
        let orders: Vec<_> = orders
            .map(|order| {
                let mut snapshot = order.published();
                snapshot["payment"] =
                    order.payment.as_ref().map_or(Value::Null, Payment::published);
                snapshot["flag"] = order.payment.as_ref().map_or(Value::Null, Payment::flag);
                snapshot
            })
            .collect();
        let captured: BTreeMap<_, _> = self
            .totals
            .cents
            .iter()
            .map(|(branch, cents)| (branch.to_string(), euros(*cents)))
            .collect();
        let Totals { orders: count, payments, flagged, .. } = &self.totals;
        let totals = json!({ "orders": count, "payments": payments, "flagged": flagged, "captured": captured });
        json!({ "orders": orders, "totals": totals })
    }
}

// === impl Order ===

impl Order {
    fn published(&self) -> Value {
        json!({
            "id": order_id(self.number),
            "branch": self.branch,
            "lines": self.lines,
            "total": euros(self.cents),
            "currency": "EUR",
        })
    }
}

// === impl Payment ===

impl Payment {
    pub(super) fn branch(&self) -> u64 {
        self.branch
    }

    pub(super) fn published(&self) -> Value {
        json!({
            "id": format!("p-{}", FIRST_PAYMENT + self.number),
            "order": order_id(self.number),
            "branch": self.branch,
            "amount": euros(self.cents),
            "method": if self.number.is_multiple_of(4) { "cash" } else { "card" },
        })
    }

    /// What an admin is asked to look at; null if it is an ordinary payment.
    pub(super) fn flag(&self) -> Value {
        if !self.is_flagged() {
            return Value::Null;
        }
        json!({
            "payment": format!("p-{}", FIRST_PAYMENT + self.number),
            "order": order_id(self.number),
            "amount": euros(self.cents),
            "reason": "above limit",
        })
    }

    fn is_flagged(&self) -> bool {
        self.cents >= FLAGGED_CENTS
    }
}

/// Stamps data with the time at which it is published, for pages that show how long it took.
pub(super) fn stamped(mut data: Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    data["at"] = json!(now.as_secs_f64() * 1000.0);
    data
}

fn order_id(number: u64) -> String {
    format!("o-{}", FIRST_ORDER + number)
}

/// The same order for the same number: variety without chance.
fn basket(number: u64) -> (Vec<Value>, u64) {
    let mut cents = 0;
    let lines = (0..=number % 3)
        .map(|line| {
            let index = usize::try_from((number * 7 + line * 5) % 6).unwrap_or_default();
            let (sku, name, price) = MENU[index];
            let quantity = 1 + (number + line * 3) % 4;
            cents += price * quantity;
            json!({ "sku": sku, "name": name, "quantity": quantity })
        })
        .collect();
    (lines, cents)
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_what_was_published_and_the_totals() {
        let mut shop = Shop::open();
        let (number, order) = shop.order(2);
        let before = shop.snapshot(Some(2));
        let last = before["orders"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["id"], &last["payment"]), (&order["id"], &Value::Null));
        let payment = shop.pay(number).expect("it is not paid yet");
        assert!(shop.pay(number).is_none(), "it was paid twice");
        let after = shop.snapshot(Some(2));
        let last = after["orders"].as_array().unwrap().last().unwrap();
        assert_eq!(last["payment"], payment.published());
        assert_eq!(after["totals"]["payments"], EARLIER_ORDERS + 1);
        assert!(after["orders"].as_array().unwrap().iter().all(|order| order["branch"] == 2));
    }

    #[test]
    fn only_the_newest_orders_are_kept() {
        let mut shop = Shop::open();
        for _ in 0..200 {
            shop.order(1);
        }
        let snapshot = shop.snapshot(None);
        assert_eq!(snapshot["orders"].as_array().unwrap().len(), ORDERS_KEPT);
        assert_eq!(snapshot["totals"]["orders"], EARLIER_ORDERS + 200);
        assert!(shop.pay(0).is_none(), "an order that was forgotten was paid");
    }
}
