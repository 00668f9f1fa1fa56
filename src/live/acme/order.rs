//! One order: from the account to the certificate.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Collected};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeType, Error,
    HttpClient as AcmeHttp, Identifier, Key, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::folder::SavedOrder;
use super::{AcmeChallenge, AcmeManager, now};
use crate::clients::HttpClient;
use crate::tls::{AcmeCertificate, certificate_request};

/// How long a validation, and then the certificate, is waited for.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(90));

/// The least and the longest time between two questions when to renew a certificate, in seconds.
const SUGGESTION_INTERVAL: (i64, i64) = (3_600, 86_400);

/// The client of calls, for the protocol.
struct Calls(Arc<HttpClient>);

impl AcmeHttp for Calls {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_or_else(|never| match never {}, Collected::to_bytes);
            let response =
                client.send(Request::from_parts(head, body)).await.map_err(|error| Error::Other(Box::new(error)))?;
            let (parts, body) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

impl AcmeManager {
    /// Returns the account. Its key is saved before the server knows of it.
    async fn account(&self) -> Result<Account, String> {
        let pem = match self.folder.account_key()? {
            Some(pem) => pem,
            None => {
                let pem = rcgen::KeyPair::generate().map_err(|e| e.to_string())?.serialize_pem();
                self.folder.save_account_key(&pem)?;
                pem
            }
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("account.key: {e}"))?;
        let key = Key::from_pkcs8_der(der.clone_key()).map_err(text)?;
        let builder = Account::builder_with_http(Box::new(Calls(Arc::clone(&self.client))));
        let created = builder.create_from_key((key, der.into()), self.shape.directory.clone()).await;
        let (account, _) = created.map_err(text)?;
        if !self.shape.contact.is_empty() {
            let contact: Vec<&str> = self.shape.contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await.map_err(text)?;
        }
        Ok(account)
    }

    /// Obtains a certificate and saves it.
    pub(super) async fn obtain(&self, certificate: &AcmeCertificate) -> Result<(), String> {
        let account = self.account().await?;
        let (mut order, key) = self.order(&account, certificate).await?;
        let result = self.complete(&mut order, certificate, &key).await;
        if result.is_err() && order.state().status == OrderStatus::Invalid {
            // The next attempt needs another one.
            self.folder.forget_order(&certificate.names);
        }
        let chain = result?;
        self.folder.save_certificate(&certificate.names, &key, &chain)?;
        let obtained = self.folder.certificate(&certificate.names);
        certificate.store(obtained.ok_or("the certificate that was obtained cannot be used")?);
        Ok(())
    }

    /// Returns the order that is under way, or a new one, with the key of its certificate. It is saved before it is
    /// used.
    async fn order(&self, account: &Account, certificate: &AcmeCertificate) -> Result<(Order, String), String> {
        let names = &certificate.names;
        if let Some(saved) = self.folder.order(names) {
            match account.order(saved.url).await {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        return Ok((order, saved.key));
                    }
                }
                Err(Error::Api(_)) => {}
                Err(error) => return Err(text(error)),
            }
            self.folder.forget_order(names);
        }
        let identifiers: Vec<Identifier> = names.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let current = certificate.is_obtained().then(|| certificate.current());
        let replaced = current.as_ref().and_then(|current| identifier(current));
        let plain = NewOrder::new(&identifiers);
        let order = match replaced {
            Some(replaced) => match account.new_order(&NewOrder::new(&identifiers).replaces(replaced)).await {
                // A server without renewal information, or one that does not know the certificate.
                Err(Error::Unsupported(_) | Error::Api(_)) => account.new_order(&plain).await,
                other => other,
            },
            None => account.new_order(&plain).await,
        };
        let order = order.map_err(text)?;
        let (key, _) = certificate_request(names, None)?;
        self.folder.save_order(names, &SavedOrder { url: order.url().to_owned(), key: key.clone() })?;
        Ok((order, key))
    }

    /// Meets the challenges of an order, and returns the chain of the certificate.
    async fn complete(&self, order: &mut Order, certificate: &AcmeCertificate, key: &str) -> Result<String, String> {
        if order.state().status == OrderStatus::Pending {
            self.meet_challenges(order, certificate).await?;
            if order.poll_ready(&POLLING).await.map_err(text)? == OrderStatus::Invalid {
                return Err(self.failure(order).await);
            }
        }
        if order.state().status == OrderStatus::Ready {
            let (_, request) = certificate_request(&certificate.names, Some(key))?;
            order.finalize_csr(&request).await.map_err(text)?;
        }
        order.poll_certificate(&POLLING).await.map_err(text)
    }

    async fn meet_challenges(&self, order: &mut Order, certificate: &AcmeCertificate) -> Result<(), String> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(text)?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                _ => return Err(format!("the authorization of {} is no longer valid", authorization.identifier())),
            }
            let kind = match self.shape.challenge {
                AcmeChallenge::Http01 => ChallengeType::Http01,
                AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            };
            let mut challenge = authorization.challenge(kind).ok_or("the server does not offer the challenge")?;
            let proof = challenge.key_authorization();
            match self.shape.challenge {
                AcmeChallenge::Http01 => {
                    self.tokens.lock().insert(challenge.token.clone(), proof.as_str().to_owned());
                }
                AcmeChallenge::TlsAlpn01 => {
                    let name = challenge.identifier().to_string();
                    certificate.set_challenge(&name, proof.digest().as_ref())?;
                }
            }
            challenge.set_ready().await.map_err(text)?;
        }
        Ok(())
    }

    /// Returns why an order is invalid: what the server says of its challenges.
    async fn failure(&self, order: &mut Order) -> String {
        let mut why = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let _ = authorization.refresh().await;
            let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            why.extend(errors.map(|error| format!("{}: {error}", authorization.identifier())));
        }
        if why.is_empty() { "the order is invalid".to_owned() } else { why.join("; ") }
    }

    /// Returns when the server suggests to renew a certificate (RFC 9773), if it suggests anything.
    pub(super) async fn suggested(&self, certificate: &AcmeCertificate, current: &CertifiedKey) -> Option<i64> {
        let known = |progress: &super::Progress| (progress.suggested_until > now()).then_some(progress.suggested);
        let known = self.progress.lock().get(&certificate.names).and_then(known);
        if let Some(known) = known {
            return known;
        }
        let (suggested, pause) = match self.renewal_info(current).await {
            Some((start, end, pause)) => (Some(start + fastrand::i64(0..=(end - start).max(0))), pause),
            None => (None, SUGGESTION_INTERVAL.1),
        };
        let mut all = self.progress.lock();
        let progress = all.entry(certificate.names.clone()).or_default();
        progress.suggested = suggested;
        progress.suggested_until = now() + pause.clamp(SUGGESTION_INTERVAL.0, SUGGESTION_INTERVAL.1);
        suggested
    }

    async fn renewal_info(&self, current: &CertifiedKey) -> Option<(i64, i64, i64)> {
        let id = identifier(current)?;
        let account = self.account().await.ok()?;
        let (info, pause) = account.renewal_info(&id).await.ok()?;
        let window = info.suggested_window;
        let pause = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
        Some((window.start.unix_timestamp(), window.end.unix_timestamp(), pause))
    }
}

/// Returns the identifier of a certificate (RFC 9773, section 4.1).
fn identifier(certified: &CertifiedKey) -> Option<CertificateIdentifier<'static>> {
    let (_, parsed) = X509Certificate::from_der(certified.cert.first()?).ok()?;
    let key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(CertificateIdentifier {
        authority_key_identifier: URL_SAFE_NO_PAD.encode(key.0).into(),
        serial: URL_SAFE_NO_PAD.encode(parsed.raw_serial()).into(),
    })
}
