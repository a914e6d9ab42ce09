//! Turns of a browser's event loop: messages, and errors of the device, arrive between two bursts.

/// Lets the event loop go on once. Natively there is none.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn turn() {}

/// Lets the event loop go on once.
///
/// By a message rather than by a timer: browsers hold timers up for some milliseconds.
#[cfg(target_family = "wasm")]
pub(crate) async fn turn() {
    use futures_channel::oneshot;
    use wasm_bindgen::JsCast;
    use wasm_bindgen::closure::Closure;

    let Ok(channel) = web_sys::MessageChannel::new() else { return };
    let (sender, turned) = oneshot::channel();
    let heard = Closure::once(move || {
        // If nobody is waiting any more, the call was given up.
        let _ = sender.send(());
    });
    channel.port1().set_onmessage(Some(heard.as_ref().unchecked_ref()));
    if channel.port2().post_message(&wasm_bindgen::JsValue::NULL).is_ok() {
        let _ = turned.await;
    }
    channel.port1().close();
}
