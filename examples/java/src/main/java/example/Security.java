package example;

import java.net.MalformedURLException;
import java.net.URI;
import java.util.List;
import java.util.Objects;
import java.util.Set;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.jwk.source.RateLimitReachedException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpStatus;
import org.springframework.security.authentication.AuthenticationServiceException;
import org.springframework.security.config.ObjectPostProcessor;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.oauth2.server.resource.web.BearerTokenAuthenticationEntryPoint;
import org.springframework.security.oauth2.server.resource.web.authentication.BearerTokenAuthenticationFilter;
import org.springframework.security.web.SecurityFilterChain;

/** Every request needs an access token of AuthService. */
@Configuration
class Security {

    /** An allow-list, so that a token cannot choose its own (RFC 8725 3.1). */
    private static final Set<JWSAlgorithm> ALGORITHMS = Set.of(JWSAlgorithm.RS256, JWSAlgorithm.PS256, JWSAlgorithm.ES256);
    /** The server's max-age. */
    private static final long MAX_AGE_MILLIS = 300_000;

    @Bean
    SecurityFilterChain chain(HttpSecurity http) throws Exception {
        return http
            .authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
            // A token in a header is not sent by a browser on its own.
            .csrf(csrf -> csrf.disable())
            .oauth2ResourceServer(server -> server.jwt(jwt -> {}).withObjectPostProcessor(unavailableIs503()))
            .build();
    }

    /** Keys that cannot be read say nothing about the token. Spring alone answers with 500. */
    private static ObjectPostProcessor<BearerTokenAuthenticationFilter> unavailableIs503() {
        var refuse = new BearerTokenAuthenticationEntryPoint();
        return new ObjectPostProcessor<>() {
            @Override
            public <O extends BearerTokenAuthenticationFilter> O postProcess(O filter) {
                filter.setAuthenticationFailureHandler((request, response, failure) -> {
                    if (failure instanceof AuthenticationServiceException) {
                        response.setHeader(HttpHeaders.RETRY_AFTER, "1");
                        response.setStatus(HttpStatus.SERVICE_UNAVAILABLE.value());
                    } else {
                        refuse.commence(request, response, failure);
                    }
                });
                return filter;
            }
        };
    }

    @Bean
    JwtDecoder decoder(
        @Value("${auth.issuer}") String issuer,
        @Value("${auth.audience}") String audience,
        @Value("${auth.jwks-cooldown}") double cooldownSeconds
    ) throws MalformedURLException {
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(ALGORITHMS, keys(issuer, cooldownSeconds)));
        // RFC 9068 4: no other kind of token that AuthService signs is an access token. Without this line Nimbus wants `JWT`.
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        // The claims are judged by the validator below.
        processor.setJWTClaimsSetVerifier((claims, context) -> {});

        var decoder = new NimbusJwtDecoder(processor);
        // iss, aud, exp, and that sub, iat, jti and client_id are there (RFC 9068 2.2). Any client may call this server.
        decoder.setJwtValidator(JwtValidators.createAtJwtValidator()
            .issuer(issuer)
            .audience(audience)
            .validators(rules -> rules.put("client_id", new JwtClaimValidator<String>("client_id", Objects::nonNull)))
            .build());
        return decoder;
    }

    /** The keys of AuthService, read again when they are old and when a kid is unknown. */
    private static JWKSource<SecurityContext> keys(String issuer, double cooldownSeconds) throws MalformedURLException {
        var url = URI.create(issuer + "/.well-known/jwks.json").toURL();
        var source = JWKSourceBuilder.<SecurityContext>create(url, new DefaultResourceRetriever(2_000, 5_000, 100_000))
            .cache(MAX_AGE_MILLIS, 10_000)
            .refreshAheadCache(false)
            .rateLimited((long) (cooldownSeconds * 1000))
            .build();
        var any = new JWKSelector(new JWKMatcher.Builder().build());
        return (selector, context) -> {
            try {
                return source.get(selector, context);
            } catch (RateLimitReachedException early) {
                // Anybody can make up kids: one that comes too early is unknown. This throws when there are no keys at all.
                source.get(any, context);
                return List.of();
            }
        };
    }
}
